"""MaxRL: advantages that approximate the likelihood gradient of a right response."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import statistics


def maxrl_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    eps: float | jax.Array = 0.0,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus their group's mean, divided by that mean.

    A_i = (R_i - mean_g(R)) / (mean_g(R) + eps), 0 where mean_g(R) <= 0. MaxRL, arXiv
    2602.02710 (v3), algorithm 1, which has no `eps`; SkyRL adds 1e-6, prime-rl none.
    For rewards of 0 and 1 and a group of n the gradient is that of sum_k=1^(n-1)
    pass@k / k (theorem 5, read in a summary of the paper), a truncated series of log p:
    between REINFORCE and the likelihood of a right response, where a hard prompt has a
    weight of about 1 / p. A right response among k right ones of n gets n / k - 1, a
    wrong one -1. Rewards must not be negative.

    Args:
      rewards: [B] one per sequence, >= 0.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      eps: added to the mean, >= 0.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one.

    Raises:
      ValueError: shapes differ, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import maxrl_advantages
      >>> rewards, ids = jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.zeros(4, int)
      >>> print(maxrl_advantages(rewards, ids, num_groups=1))
      [ 3. -1. -1. -1.]
    """
    _checks.number("eps", eps, at_least=0)
    stats = statistics(rewards, group_ids, num_groups, valid)
    total = stats.groups.total(_checks.constant("rewards", rewards))
    mean = total / jnp.maximum(stats.sizes, 1.0)
    # Not mean > 0, which would turn a nan into a 0.
    scale = jnp.where(mean <= 0, jnp.inf, mean + eps)
    return jax.lax.stop_gradient(stats.centred / scale[stats.groups.ids])
