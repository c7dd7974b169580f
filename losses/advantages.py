"""Advantages that many methods share: group baselines, group and batch statistics.

Groups of responses to one prompt are given by ids, not by position: they may have any
sizes and any order. A group without signal (all rewards equal, which includes a group
of one) gets exactly 0. Advantages of one method alone are in that method's module.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import moments, statistics, zero_masked


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
      rewards: [B] one per sequence.
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
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")
    _checks.number("eps", eps, at_least=0)
    stats = statistics(rewards, group_ids, num_groups, valid)
    squares = stats.groups.total(stats.centred**2)
    variance = squares / jnp.maximum(stats.sizes - ddof, 1.0)
    # Not variance > 0, which would turn a nan into a 1.
    std = jnp.where(variance == 0, 1.0, jnp.sqrt(variance) + eps)
    return jax.lax.stop_gradient(stats.centred / std[stats.groups.ids])


def dr_grpo_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus the mean of their group, without division by the std.

    A_i = R_i - mean_g(R). Dr. GRPO, arXiv 2503.20783: a division by the standard
    deviation weighs very easy and very hard prompts more. The other half of the method
    is `fixed_length_mean`.

    Args:
      rewards: [B] one per sequence.
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
    """Rewards minus the mean of the others of their group.

    A_i = R_i - 1/(n-1) sum_{j != i} R_j = n/(n-1) (R_i - mean_g(R)), n the size of the
    group. RLOO, arXiv 2402.14740.

    Args:
      rewards: [B] one per sequence.
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


def batch_std_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    ddof: int = 1,
    eps: float | jax.Array = 1e-6,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus their group's mean, divided by the batch's standard deviation.

    A_i = (R_i - mean_g(R)) / (std(R) + eps), std over the batch, about the batch's
    mean. Lite PPO, arXiv 2508.08221; ScaleRL, arXiv 2510.13786: a group that is nearly
    all right or all wrong is not blown up as in GRPO. TRL's `scale_rewards="batch"` is
    `eps=1e-4`. The standard deviation is that of the raw rewards, as there; to divide
    by that of the centred ones: `whiten(dr_grpo_advantages(...), valid)`.

    Args:
      rewards: [B] one per sequence; the whole batch.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0 and is
        in neither statistic.
      num_groups: static.
      ddof: 1 divides the sum of squares by B - 1, 0 by B.
      eps: added to the standard deviation, >= 0.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one.

    Raises:
      ValueError: shapes differ, `ddof` is not 0 or 1, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_std_advantages
      >>> rewards = jnp.array([1.0, 0.0, 2.0, 2.0, 0.0])
      >>> ids = jnp.array([0, 0, 1, 1, 1])
      >>> print(batch_std_advantages(rewards, ids, num_groups=2).round(4))
      [ 0.5    -0.5     0.6667  0.6667 -1.3333]
    """
    _checks.number("eps", eps, at_least=0)
    stats = statistics(rewards, group_ids, num_groups, valid)
    rewards = _checks.constant("rewards", rewards)
    _, variance = moments(rewards, stats.groups.member, ddof)
    std = jnp.where(variance == 0, 1.0, jnp.sqrt(variance) + eps)
    return jax.lax.stop_gradient(stats.centred / std)


def whiten(
    x: ArrayLike,
    mask: ArrayLike,
    *,
    ddof: int = 1,
    eps: float | jax.Array = 1e-8,
    center: bool = True,
) -> jax.Array:
    """Scales to variance 1 over all unmasked entries, by default with mean 0.

    y = (x - mean(x)) / sqrt(var(x) + eps), or without centring y = x / sqrt(var(x) +
    eps), which keeps the signs. REINFORCE++, arXiv 2501.03262; PPO's public
    implementations do the same to GAE's advantages, never to the value targets. verl
    and TRL: `ddof=1`, `eps=1e-8`, and `whiten(x, mask) + mean` when asked to keep the
    mean; OpenRLHF: `ddof=0`, and the variance is clamped to at least 1e-8 instead of
    adding it.

    Args:
      x: [B, T], or any shape; pass the whole batch, since the statistics of a part are
        not the batch's. On a mesh they are those of all devices.
      mask: the same shape, bool or 0/1; `x` may hold anything where it is 0.
      ddof: 1 divides the sum of squares by n - 1, 0 by n.
      eps: added to the variance, >= 0.
      center: whether to subtract the mean.

    Returns:
      float32 constants, zero outside the mask. Where all unmasked entries are equal:
      exactly 0, or without centring `x` unchanged.

    Raises:
      ValueError: shapes differ, `ddof` is not 0 or 1, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import whiten
      >>> x, mask = jnp.array([[3.0, 1.0], [-1.0, 9.0]]), jnp.array([[1, 1], [1, 0]])
      >>> print(whiten(x, mask))
      [[ 1.  0.]
       [-1.  0.]]
      >>> print(whiten(x, mask, center=False))
      [[ 1.5  0.5]
       [-0.5  0. ]]
    """
    _checks.number("eps", eps, at_least=0)
    x, mask = _checks.constant("x", x), _checks.as_bool(mask)
    _checks.same_shape(x.ndim, x=x, mask=mask)
    centred, variance = moments(x, mask, ddof)
    scale = jnp.where(variance == 0, 1.0, jnp.sqrt(variance + eps))
    out = (centred if center else zero_masked(x, mask)) / scale
    return jax.lax.stop_gradient(out)


def group_signal(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Which groups hold two different rewards: the filter of dynamic sampling.

    signal_g = max_g(R) != min_g(R). DAPO, arXiv 2503.14476, equation 11, with the
    accuracy as the reward. A zero standard deviation is no test for it: in float32,
    that of equal rewards is rarely exactly 0.

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      [num_groups] bool; False for a group that is empty or has one sequence. A nan
      among several rewards counts as different, so that it is not hidden.

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
