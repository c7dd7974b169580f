"""Per-token policy objectives, to be minimised: clipped surrogate and REINFORCE.

Each returns [B, T], zero outside the mask, differentiable in `logprobs` alone; a
reduction makes a number of it.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import (
    bounded_exp,
    k3,
    keep,
    live_total,
    policy_arrays,
    spread,
)

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def clipped_surrogate(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
) -> jax.Array:
    """PPO's clipped objective with separate bounds and an optional dual clip.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), and where A < 0 with a
    dual clip c: l = min(l, -A c). PPO, arXiv 1707.06347, equation 7; two bounds
    (clip-higher), DAPO, arXiv 2503.14476, equation 10; dual clip, arXiv 1912.09729.
    The log-ratio is cut to +-20, beyond which the gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] of the policy at the start of the update; a constant.
      advantages: [B, T], or [B] for one a sequence; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the ratio is cut below at 1 - clip_low; >= 0, no cut from 1 on.
      clip_high: the ratio is cut above at 1 + clip_high; >= 0.
      dual_clip: bound c > 1 of the ratio where A < 0; None for none.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import clipped_surrogate
      >>> logprobs, old = jnp.log(jnp.array([[1.5, 0.5]])), jnp.zeros((1, 2))
      >>> mask, clip = jnp.ones((1, 2)), {"clip_low": 0.25, "clip_high": 0.25}
      >>> print(clipped_surrogate(logprobs, old, jnp.array([1.0]), mask, **clip))
      [[-1.25 -0.5 ]]
      >>> print(clipped_surrogate(logprobs, old, jnp.array([-1.0]), mask, **clip))
      [[1.5  0.75]]
    """
    check_clip(clip_low, clip_high, dual_clip)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    ratio = bounded_exp(log_ratio)
    low, high = 1.0 - clip_low, 1.0 + clip_high
    # For A >= 0 only the upper bound can act, for A < 0 only the lower one and the dual
    # clip. Comparisons keep the slope whole where ratio and bound are equal.
    below = jnp.where(ratio > high, high, ratio)
    above = jnp.where(ratio < low, low, ratio)
    if dual_clip is not None:
        above = jnp.where(above > dual_clip, dual_clip, above)
    loss = -advantages * jnp.where(advantages < 0, above, below)
    return keep(loss, live)


def policy_gradient(
    logprobs: ArrayLike, advantages: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """REINFORCE: the log-probability weighed by the advantage.

    l = -A log pi, so that dl / dlogprobs = -A. Williams 1992. The value tells nothing
    about progress, only the gradient counts.

    Args:
      logprobs: [B, T] of the policy being trained.
      advantages: [B, T], or [B] for one a sequence; a constant.
      mask: [B, T] bool or 0/1.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import policy_gradient
      >>> logprobs = jnp.array([[-0.5, -2.0]])
      >>> print(policy_gradient(logprobs, jnp.array([2.0]), jnp.array([[1, 0]])))
      [[1. 0.]]
    """
    logprobs, live = _checks.floating("logprobs", logprobs), _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=live)
    advantages = spread("advantages", _checks.constant("advantages", advantages), live)
    return keep(-advantages * keep(logprobs, live), live)


def policy_metrics(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
) -> Metrics:
    """What to watch while a clipped objective is trained, as (total, count) pairs.

    Over live tokens: `ratio` rho; `clip_frac_high` [A > 0 and rho > 1 + clip_high];
    `clip_frac_low` [A < 0 and rho < 1 - clip_low]; with a dual clip `clip_frac_dual`
    [A < 0 and rho > dual_clip]; and estimates of KL(old || new), with d = old - new:
    `approx_kl_k1` d, which may be negative, and `approx_kl_k3` exp(-d) - 1 + d.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] of the policy at the start of the update.
      advantages: [B, T] or [B].
      mask: [B, T] bool or 0/1.
      clip_low: as given to the objective.
      clip_high: as given to the objective.
      dual_clip: as given to the objective.

    Returns:
      Name -> (total, count), float32 scalars without gradient; count is the number of
      live tokens here. Add totals and counts over micro-batches and devices, then
      divide once.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import policy_metrics
      >>> logprobs, old = jnp.log(jnp.array([[1.5, 0.5]])), jnp.zeros((1, 2))
      >>> mask = jnp.ones((1, 2))
      >>> metrics = policy_metrics(logprobs, old, jnp.array([1.0]), mask)
      >>> [float(x) for x in metrics["clip_frac_high"]]
      [1.0, 2.0]
    """
    check_clip(clip_low, clip_high, dual_clip)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    log_ratio = jax.lax.stop_gradient(log_ratio)
    ratio = bounded_exp(log_ratio)
    values = {
        "ratio": ratio,
        "clip_frac_low": (advantages < 0) & (ratio < 1.0 - clip_low),
        "clip_frac_high": (advantages > 0) & (ratio > 1.0 + clip_high),
        "approx_kl_k1": -log_ratio,
        "approx_kl_k3": k3(-log_ratio),
    }
    if dual_clip is not None:
        values["clip_frac_dual"] = (advantages < 0) & (ratio > dual_clip)
    return {name: masked_total(x, live) for name, x in values.items()}


def masked_total(x: ArrayLike, mask: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Sum over live tokens and their number: one metric's (total, count) pair.

    (sum_it m_it x_it, sum_it m_it); total / count is the token mean, once both are
    added up over micro-batches and devices.

    Args:
      x: [B, T] numbers or bools; may hold anything where the mask is 0.
      mask: [B, T] bool or 0/1.

    Returns:
      Two float32 scalars without gradient.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import masked_total
      >>> pair = masked_total(jnp.array([[3.0, 5.0]]), jnp.array([[1, 0]]))
      >>> [float(x) for x in pair]
      [3.0, 1.0]
    """
    x, live = _checks.constant("x", x), _checks.flags(mask)
    _checks.same_shape(2, x=x, mask=live)
    return live_total(x, live)


def check_clip(
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
    dual_clip: float | jax.Array | None,
) -> None:
    """Refuses bounds that would clip on the wrong side of 1."""
    _checks.not_negative("clip_low", clip_low)
    _checks.not_negative("clip_high", clip_high)
    if dual_clip is not None:
        _checks.setting(
            "dual_clip", dual_clip, "finite and > 1", lambda x: 1 < x < math.inf
        )
