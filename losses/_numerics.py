"""Arithmetic that stays finite: select and bound before exp, do not cancel."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks

# exp(20) is about 5e8: far past any clip, far from float32's overflow.
LOG_RATIO_BOUND = 20.0

# 1/n for n = 10 .. 3, the nested factors of the series of exp(-d) - 1 + d.
_SERIES = tuple(1.0 / n for n in range(10, 2, -1))


def keep(x: jax.Array, mask: jax.Array) -> jax.Array:
    """`x` where the mask is set, else 0; what lies under the mask may be nan."""
    return jnp.where(mask, x, 0.0)


def live_total(x: jax.Array, live: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum over live entries, their number), float32 without gradient."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    return jnp.sum(keep(x, live)), jnp.sum(live, dtype=jnp.float32)


def spread(name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] or [B, T] -> [B, T], zero outside the mask.

    The shape decides, never broadcasting: a [B] array stays one number a sequence
    when T happens to equal B.
    """
    if x.ndim == 1 and x.shape[0] == mask.shape[0]:
        x = jnp.broadcast_to(x[:, None], mask.shape)
    elif x.shape != mask.shape:
        raise ValueError(
            f"{name} must have shape {list(mask.shape)} like the mask or "
            f"[{mask.shape[0]}], got {list(x.shape)}"
        )
    return keep(x, mask)


def policy_arrays(
    logprobs: ArrayLike, old_logprobs: ArrayLike, advantages: ArrayLike, mask: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Checks the arrays that every policy objective takes.

    Returns:
      The log-ratio [B, T] (0 outside the mask, differentiable in `logprobs` alone), the
      advantages [B, T] and the mask as bool.
    """
    new = _checks.floating("logprobs", logprobs)
    old = _checks.constant(
        "old_logprobs", _checks.floating("old_logprobs", old_logprobs)
    )
    live = _checks.flags(mask)
    _checks.same_shape(2, logprobs=new, old_logprobs=old, mask=live)
    spread_out = spread("advantages", _checks.constant("advantages", advantages), live)
    return keep(new - old, live), spread_out, live


def bounded_exp(log_ratio: jax.Array) -> jax.Array:
    """exp of a log-ratio cut to +-20; the gradient outside is 0."""
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND))


def k3(d: jax.Array) -> jax.Array:
    """exp(-d) - 1 + d without cancellation; never negative, never infinite.

    Near 0 the three terms cancel, by expm1 too: at d = 1e-3 float32 keeps four digits.
    There the series d^2/2 (1 - d/3 (1 - d/4 (...))) is used, whose factors stay
    positive. Below -20 the value stays that of -20 and the gradient is 0.
    """
    d = jnp.maximum(d, -LOG_RATIO_BOUND)
    small = jnp.abs(d) < 0.5
    # Each branch sees only arguments of its own: no inf or nan enters a gradient.
    near, far = jnp.where(small, d, 0.0), jnp.where(small, 1.0, d)
    series = jnp.ones_like(d)
    for factor in _SERIES:
        series = 1.0 - near * factor * series
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(-far) + far)


def pick(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[..., index]: [..., V], [...] -> [...]; nan where the index is V or more."""
    return jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]
