"""Baselines other than the group's mean: OPO and ReMax.

`rloo_advantages`, the mean of the others, stands with GRPO in `advantages`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._groups import statistics
from jaxrl_reason.losses._numerics import keep


def opo_advantages(
    rewards: ArrayLike,
    lengths: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards less the mean of their group weighted by length.

    b_g = sum_{i in g} n_i R_i / sum_{i in g} n_i, A_i = R_i - b_g, n the length. OPO,
    arXiv 2505.23585: the baseline of least variance where the squared norm of a
    response's gradient grows with its length. verl's `opo` leaves a group of one its
    raw reward; here it gets 0.

    Args:
      rewards: [B] one a sequence.
      lengths: [B] tokens of each response, >= 0, integers or floats. Where all lengths
        of a group are 0 its plain mean is the baseline.
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
    # The baseline's distance from the group's mean: 0 exactly where nothing differs.
    ids, member, _ = stats.groups
    total = stats.groups.total(lengths)
    shift = stats.groups.total(lengths * stats.centred)
    shift /= jnp.where(total == 0, 1.0, total)
    return jax.lax.stop_gradient(keep(stats.centred - shift[ids], member))


def remax_advantages(
    rewards: ArrayLike, greedy_rewards: ArrayLike, *, valid: ArrayLike | None = None
) -> jax.Array:
    """Rewards less the reward of the greedy response to the same prompt.

    A_i = R(y_i) - R(y_greedy). ReMax, arXiv 2310.10505: one more response a prompt, at
    temperature 0, which is scored and not trained on. verl's `remax` sums token rewards
    with their KL penalties from each token on and takes the score alone as the
    baseline: `discounted_returns(token_rewards, mask) - greedy_rewards[:, None]`.

    Args:
      rewards: [B] one a sequence.
      greedy_rewards: [B] of the greedy response to the same prompt. With several
        samples a prompt: `greedy_rewards[group_ids]`.
      valid: [B] bool or 0/1; the others get 0, as where either grade failed.

    Returns:
      [B] float32 constants; exactly 0 where the sample is worth the greedy response.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import remax_advantages
      >>> rewards, greedy = jnp.array([1.0, 0.0, 0.5]), jnp.array([0.25, 0.25, 0.5])
      >>> print(remax_advantages(rewards, greedy))
      [ 0.75 -0.25  0.  ]
    """
    rewards = _checks.constant("rewards", rewards)
    greedy = _checks.constant("greedy_rewards", greedy_rewards)
    on = _checks.flags_or_all(valid, rewards)
    _checks.same_shape(1, rewards=rewards, greedy_rewards=greedy, valid=on)
    return keep(rewards - greedy, on)
