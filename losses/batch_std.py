"""The group's mean as the baseline, the whole batch's deviation as the scale."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._groups import statistics
from jaxrl_reason.losses._moments import deviation, moments


def batch_std_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    ddof: int = 1,
    eps: float | jax.Array = 1e-6,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards less their group's mean, divided by the deviation of all rewards.

    A_i = (R_i - mean_g(R)) / (std(R) + eps), std over the batch, about the batch's
    mean. Lite PPO, arXiv 2508.08221; ScaleRL, arXiv 2510.13786: a group that is nearly
    all right or all wrong is not blown up as in GRPO. TRL's `scale_rewards="batch"` is
    `eps=1e-4`. The deviation is that of the raw rewards, as there; to divide by the
    deviation of the centred ones: `whiten(dr_grpo_advantages(...), valid)`.

    Args:
      rewards: [B] one a sequence; the whole batch.
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
    _checks.not_negative("eps", eps)
    stats = statistics(rewards, group_ids, num_groups, valid)
    rewards = _checks.constant("rewards", rewards)
    _, variance = moments(rewards, stats.groups.member, ddof)
    return jax.lax.stop_gradient(stats.centred / deviation(variance, eps))
