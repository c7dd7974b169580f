"""GDPO: several rewards, each normalised inside its group before they are summed."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import read_groups
from jaxrl_reason.losses.advantages import grpo_advantages


def gdpo_advantages(
    reward_components: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    weights: ArrayLike | None = None,
    ddof: int = 1,
    eps: float | jax.Array = 1e-4,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Each reward standardised inside its group, summed, scaled over the batch.

    Z_ik = (R_ik - mean_g(R_k)) / (std_g(R_k) + eps), S_i = sum_k w_k Z_ik, A_i = S_i /
    (std(S) + eps) over the batch. GDPO, arXiv 2601.05242: GRPO on the summed reward
    cannot tell [1, 0] from [0, 1]. The batch's mean, which the paper subtracts from S,
    is always 0; it is not computed, so that groups without signal keep an exact 0. The
    defaults are TRL's `multi_objective_aggregation="normalize_then_sum"`.

    Args:
      reward_components: [B, K] K rewards per sequence; the whole batch.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      weights: [K]; all 1 if left out.
      ddof: 1 divides sums of squares by n - 1, 0 by n; in groups and over the batch.
      eps: added to both standard deviations, >= 0.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups where every reward is equal, in groups
      of one, and in groups with a reward that is nan or infinite, which are left out of
      the batch's statistics too: `lost_group_ratio` counts them.

    Raises:
      ValueError: shapes differ, no component, `ddof` is not 0 or 1, or `eps` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gdpo_advantages
      >>> rewards = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
      >>> found = gdpo_advantages(rewards, jnp.zeros(4, int), num_groups=1)
      >>> [round(x, 4) for x in found.tolist()]
      [-0.6894, 1.4856, -0.3981, -0.3981]
    """
    rewards = _checks.constant("reward_components", reward_components)
    _checks.same_shape(2, reward_components=rewards)
    count = rewards.shape[1]
    if count == 0:
        raise ValueError("reward_components must have at least one column, got 0")
    weights = _checks.constant(
        "weights", jnp.ones(count) if weights is None else weights
    )
    if weights.shape != (count,):
        raise ValueError(
            f"weights must have shape [{count}], one per component, "
            f"got {list(weights.shape)}"
        )
    # A reward that is not finite excludes its group, not the batch.
    broken = jnp.any(~jnp.isfinite(rewards), axis=1)  # [B]
    groups = read_groups(group_ids, num_groups, valid, reward_components=broken)
    lost = groups.total(broken.astype(jnp.int32)) > 0  # [num_groups]
    on = groups.member & ~lost[groups.ids]
    standardise = partial(
        grpo_advantages,
        group_ids=group_ids,
        num_groups=num_groups,
        ddof=ddof,
        eps=eps,
        valid=on,
    )
    each = jax.vmap(standardise, in_axes=1, out_axes=1)(rewards)
    mixed = jnp.sum(each * weights[None, :], axis=1)
    variance = jnp.sum(mixed**2) / jnp.maximum(jnp.sum(on) - ddof, 1)
    return mixed / jnp.where(variance == 0, 1.0, jnp.sqrt(variance) + eps)
