"""Advantages from groups of responses to one prompt: GRPO, Dr. GRPO, RLOO.

Groups are given by ids, not by position: they may have any sizes and any order. A group
without signal (all rewards equal, which includes a group of one) gets exactly 0.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._groups import statistics
from jaxrl_reason.losses._moments import check_ddof, deviation


def grpo_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    ddof: int = 1,
    eps: float | jax.Array = 1e-6,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards standardised inside each group.

    A_i = (R_i - mean_g(R)) / (std_g(R) + eps). GRPO, arXiv 2402.03300, section 4.1.2,
    which does not say which standard deviation; the default is that of the public
    implementations (verl, TRL): divided by n - 1, `eps` 1e-6 (TRL 1e-4).

    Args:
      rewards: [B] one a sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      ddof: 1 divides the sum of squares by n - 1, 0 by n.
      eps: added to the standard deviation, >= 0.
      valid: [B] bool or 0/1; sequences that are not valid are left out of the
        statistics and get 0. All are valid if left out.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one.

    Raises:
      ValueError: shapes differ, `ddof` is not 0 or 1, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import grpo_advantages
      >>> rewards, ids = jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.zeros(4, int)
      >>> print(grpo_advantages(rewards, ids, num_groups=1).round(4))
      [ 1.5 -0.5 -0.5 -0.5]
    """
    check_ddof(ddof)
    _checks.not_negative("eps", eps)
    stats = statistics(rewards, group_ids, num_groups, valid)
    total = stats.groups.total(stats.centred**2)
    std = deviation(total / jnp.maximum(stats.sizes - ddof, 1.0), eps)
    return jax.lax.stop_gradient(stats.centred / std[stats.groups.ids])


def dr_grpo_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards less the mean of their group, not divided by anything.

    A_i = R_i - mean_g(R). Dr. GRPO, arXiv 2503.20783: a division by the standard
    deviation weighs very easy and very hard prompts more. The other half of the method
    is `fixed_length_mean`.

    Args:
      rewards: [B] one a sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import dr_grpo_advantages
      >>> rewards, ids = jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.zeros(4, int)
      >>> print(dr_grpo_advantages(rewards, ids, num_groups=1))
      [ 0.75 -0.25 -0.25 -0.25]
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    return jax.lax.stop_gradient(stats.centred)


def rloo_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards less the mean of the others of their group.

    A_i = R_i - 1/(n-1) sum_{j != i} R_j = n/(n-1) (R_i - mean_g(R)), n the size of the
    group. RLOO, arXiv 2402.14740.

    Args:
      rewards: [B] one a sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards, and in groups of one,
      which have no baseline.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import rloo_advantages
      >>> rewards, ids = jnp.array([1.0, 0.0, 0.25, 0.75]), jnp.zeros(4, int)
      >>> print(rloo_advantages(rewards, ids, num_groups=1).round(4))
      [ 0.6667 -0.6667 -0.3333  0.3333]
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    factor = stats.sizes / jnp.maximum(stats.sizes - 1.0, 1.0)
    return jax.lax.stop_gradient(stats.centred * factor[stats.groups.ids])


def group_signal(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Which groups hold two different rewards: the filter of dynamic sampling.

    signal_g = max_g(R) != min_g(R). DAPO, arXiv 2503.14476, equation 11, with the
    accuracy as the reward. The standard deviation would not do: in float32 that of
    equal rewards is seldom 0.

    Args:
      rewards: [B] one a sequence.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      [num_groups] bool; False for a group that is empty or has one sequence. A nan
      among several rewards counts as different, it is not hidden.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import group_signal
      >>> rewards, ids = jnp.array([0.1, 0.1, 1.0, 0.0]), jnp.array([0, 0, 1, 1])
      >>> print(group_signal(rewards, ids, num_groups=3))
      [False  True False]
    """
    return statistics(rewards, group_ids, num_groups, valid).signal
