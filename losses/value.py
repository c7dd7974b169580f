"""The loss of a critic."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import keep


def value_loss(
    values: ArrayLike,
    old_values: ArrayLike | None,
    returns: ArrayLike,
    mask: ArrayLike,
    *,
    clip: float | jax.Array | None = None,
) -> jax.Array:
    """Half the squared error of the values, clipped around the old values on request.

    l = max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) / 2. PPO's public
    implementations (verl `compute_value_loss`, OpenRLHF `ValueLoss`); the paper,
    arXiv 1707.06347, equation 9, has no clip, as here by default. Where the clipped
    term is the larger, the gradient is 0.

    Args:
      values: [B, T] of the critic being trained.
      old_values: [B, T] of the critic at the start of the update, a constant; may be
        None without a clip.
      returns: [B, T] value targets, a constant, as `gae` gives them.
      mask: [B, T] bool or 0/1.
      clip: c > 0; None for none.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, `clip` <= 0, or a clip without old values.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import value_loss
      >>> old, new = jnp.array([[0.5, 0.2]]), jnp.array([[1.2, 0.9]])
      >>> ones = jnp.ones((1, 2))
      >>> print(value_loss(new, old, ones, ones, clip=0.5).round(4))
      [[0.02  0.045]]
    """
    values = _checks.floating("values", values)
    targets, live = _checks.constant("returns", returns), _checks.flags(mask)
    _checks.same_shape(2, values=values, returns=targets, mask=live)
    old = values if old_values is None else _checks.constant("old_values", old_values)
    _checks.same_shape(2, values=values, old_values=old)
    plain = jnp.square(keep(values - targets, live))
    if clip is None:
        return 0.5 * plain
    if old_values is None:
        raise ValueError("clip must come with old_values, got None")
    _checks.positive("clip", clip)
    moved = jnp.clip(keep(values - old, live), -clip, clip)
    clipped = jnp.square(keep(old + moved - targets, live))
    # By comparison: inside the range both are equal and the slope is the plain one's.
    return 0.5 * jnp.where(clipped > plain, clipped, plain)
