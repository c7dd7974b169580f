"""OPO: the minimum-variance baseline."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import statistics, zero_masked


def opo_advantages(
    rewards: ArrayLike,
    lengths: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus the length-weighted mean of their group.

    b_g = sum_{i in g} n_i R_i / sum_{i in g} n_i, A_i = R_i - b_g, n the length. OPO,
    arXiv 2505.23585: the minimum-variance baseline if the squared norm of a response's
    gradient is proportional to its length. verl's `opo` keeps the raw reward of a group
    of one; here it gets 0.

    Args:
      rewards: [B] one per sequence.
      lengths: [B] tokens of each response, >= 0, integers or floats. Where all lengths
        of a group are 0, the baseline is its plain mean.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one.
      n_i A_i, and not A_i, sums to 0 in a group.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import opo_advantages
      >>> rewards, lengths = jnp.array([1.0, 0.0]), jnp.array([30, 10])
      >>> print(opo_advantages(rewards, lengths, jnp.array([0, 0]), num_groups=1))
      [ 0.25 -0.75]
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    lengths = _checks.constant("lengths", lengths)
    _checks.same_shape(1, rewards=stats.centred, lengths=lengths)
    # The baseline minus the group's mean: exactly 0 where all rewards are equal.
    ids, member, _ = stats.groups
    total = stats.groups.total(lengths)
    shift = stats.groups.total(lengths * stats.centred)
    shift /= jnp.where(total == 0, 1.0, total)
    return jax.lax.stop_gradient(zero_masked(stats.centred - shift[ids], member))
