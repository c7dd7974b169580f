"""Advantages for the best of a group: pass@k as the objective."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import statistics


def pass_at_k_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    scale: bool = False,
    eps: float | jax.Array = 1e-6,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """How much the group's best reward would drop without each response.

    A_i = max_j R_j - max_{j != i} R_j: the gap between the best and the second best for
    the best response, 0 for all others. Tang et al., arXiv 2503.19595 (read in a
    summary of the paper): the leave-one-out gradient of E max_k R, which is pass@k for
    rewards of 0 and 1, k the size of the group. It is unbiased and sparse: if two
    responses are right, all advantages are 0. verl's `grpo_passk` divides by the
    group's standard deviation + 1e-6, `scale=True`.

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      scale: divide by the group's standard deviation (divisor n - 1) + eps.
      eps: added to the standard deviation, >= 0.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants >= 0; exactly 0 where two responses are best, and in groups
      of one.

    Raises:
      ValueError: shapes differ, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import pass_at_k_advantages
      >>> rewards, ids = jnp.array([0.25, 1.0, 0.5, 0.0]), jnp.zeros(4, int)
      >>> print(pass_at_k_advantages(rewards, ids, num_groups=1))
      [0.  0.5 0.  0. ]
    """
    _checks.number("eps", eps, at_least=0)
    stats = statistics(rewards, group_ids, num_groups, valid)
    ids, member, _ = stats.groups
    rewards = _checks.constant("rewards", rewards)
    best = stats.high[ids]  # [B]
    behind = rewards < best
    tied = stats.groups.total(member & (rewards == best)) > 1  # [num_groups]
    second = statistics(rewards, group_ids, num_groups, member & behind).high
    gap = jnp.where(stats.signal & ~tied, stats.high - second, 0.0)
    if scale:
        squares = stats.groups.total(stats.centred**2)
        std = jnp.sqrt(squares / jnp.maximum(stats.sizes - 1.0, 1.0)) + eps
        gap = gap / jnp.where(squares == 0, 1.0, std)
    # Of the whole group, not only its best: with one nan, all are nan.
    found = jnp.where(member & ~behind, gap[ids], 0.0)
    return jax.lax.stop_gradient(found)
