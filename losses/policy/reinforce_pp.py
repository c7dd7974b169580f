"""REINFORCE++: no critic, and advantages whitened over the whole batch."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import read_groups
from jaxrl_reason.losses.advantages import dr_grpo_advantages, whiten
from jaxrl_reason.losses.returns import discounted_returns


def reinforce_pp_advantages(
    token_rewards: ArrayLike,
    mask: ArrayLike,
    *,
    gamma: float | jax.Array = 1.0,
    ddof: int = 1,
    eps: float | jax.Array = 1e-8,
) -> jax.Array:
    """Reward-to-go of each token, whitened over all tokens of the batch.

    G_t = r_t + gamma G_{t'}, t' the next unmasked token; A = (G - mean(G)) /
    sqrt(var(G) + eps) over all unmasked tokens. REINFORCE++, arXiv 2501.03262; r_t
    holds the outcome on the last token and the KL penalty on every one, see
    `kl_in_reward`. Long responses count more in the statistics, and in a batch of good
    responses some advantages are negative. A masked token inside a response is skipped;
    verl reset the return there until August 2026. OpenRLHF divides by n, `ddof=0`.

    Args:
      token_rewards: [B, T]; those outside the mask are ignored.
      mask: [B, T] bool or 0/1; rows of the whole batch.
      gamma: discount per unmasked token, in [0, 1].
      ddof: 1 divides the sum of squares by n - 1, 0 by n.
      eps: added to the variance, >= 0.

    Returns:
      [B, T] float32 constants, zero outside the mask; exactly 0 where all returns are
      equal.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import reinforce_pp_advantages
      >>> rewards = jnp.array([[2.0, 9.0, 1.0], [-1.0, 9.0, 9.0]])
      >>> mask = jnp.array([[1, 0, 1], [1, 0, 0]])
      >>> print(reinforce_pp_advantages(rewards, mask))
      [[ 1.  0.  0.]
       [-1.  0.  0.]]
    """
    returns = discounted_returns(token_rewards, mask, gamma=gamma)
    return whiten(returns, mask, ddof=ddof, eps=eps)


def reinforce_pp_baseline_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    mask: ArrayLike,
    *,
    num_groups: int,
    ddof: int = 1,
    eps: float | jax.Array = 1e-8,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus their group's mean, whitened over all tokens of the batch.

    C_i = R_i - mean_g(R), one for each token of i; A = (C - mean(C)) / sqrt(var(C) +
    eps) over all unmasked tokens. REINFORCE++-baseline, arXiv 2501.03262. Since
    responses of a group differ in length, the mean over tokens is not 0, and a group
    without signal gets -mean(C) / sqrt(var(C) + eps), as in verl and OpenRLHF. verl
    divides by n - 1 and keeps the raw reward of a group of one, where C is 0 here;
    OpenRLHF divides by n. The KL is a term of the loss (`kl_penalty`, k2).

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      mask: [B, T] bool or 0/1; a fully masked row is not counted, not even in its
        group's mean.
      num_groups: static.
      ddof: 1 divides the sum of squares by n - 1, 0 by n.
      eps: added to the variance, >= 0.
      valid: [B] bool or 0/1; the others are left out of both statistics and get 0.

    Returns:
      [B, T] float32 constants, zero outside the mask; exactly 0 where no group has
      signal.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import reinforce_pp_baseline_advantages
      >>> rewards, ids = jnp.array([3.0, 1.0]), jnp.array([0, 0])
      >>> mask = jnp.array([[1, 0, 0, 0], [1, 1, 1, 1]])
      >>> found = reinforce_pp_baseline_advantages(
      ...     rewards, ids, mask, num_groups=1, ddof=0
      ... )
      >>> print(found.round(4))
      [[ 2.   0.   0.   0. ]
       [-0.5 -0.5 -0.5 -0.5]]
    """
    mask, on = _checks.as_bool(mask), read_groups(group_ids, num_groups, valid).member
    _checks.same_shape(2, mask=mask)
    on = _checks.per_row("group_ids", on, mask)[:, 0] & jnp.any(mask, axis=1)
    centred = dr_grpo_advantages(rewards, group_ids, num_groups=num_groups, valid=on)
    mask &= on[:, None]
    return whiten(
        _checks.broadcast_to_tokens("rewards", centred, mask), mask, ddof=ddof, eps=eps
    )
