"""Rotary positions: each pair of a head's halves turns by position times frequency."""

import jax
import jax.numpy as jnp

from jaxrl_reason.models.rope_scaling import RopeScaling

RopeTable = tuple[jax.Array, jax.Array]


def rope_table(
    positions: jax.Array,
    head_dim: int,
    base: float,
    scaling: RopeScaling | None = None,
) -> RopeTable:
    """Cosines and sines of every position, computed once for all layers.

    angle[..., i] = position * base^(-2i / H)

    Source: arXiv 2104.09864, equation 15.

    Args:
      positions: [...] whole numbers.
      head_dim: H, even.
      base: base of the frequencies.
      scaling: how the frequencies are stretched to a longer context.

    Returns:
      Cosines and sines, each [..., H/2] float32, times the scaling's
      attention_factor.
    """
    # [H/2]
    frequencies = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if scaling is not None:
        frequencies = scaling.stretch(frequencies, base)
    angles = jnp.expand_dims(positions.astype(jnp.float32), -1) * frequencies.reshape(
        (1,) * positions.ndim + (-1,)
    )
    factor = 1.0 if scaling is None else scaling.attention_factor or 1.0
    if factor == 1.0:
        return jnp.cos(angles), jnp.sin(angles)
    return factor * jnp.cos(angles), factor * jnp.sin(angles)


def apply_rope(x: jax.Array, table: RopeTable) -> jax.Array:
    """Rotate heads by their positions.

    The pair of dimension i is i + H/2 (the half-split order of published checkpoints),
    not its neighbour as in the paper; the two orders differ by a permutation of the
    weights.

    Args:
      x: [B, S, N, H].
      table: cosines and sines, each [B, S, H/2].

    Returns:
      [B, S, N, H] in the type of x, rotated in float32.
    """
    cos, sin = (part[:, :, None, None, :] for part in table)  # [B, S, 1, 1, H/2]
    # The halves, and the halves swapped: nothing is concatenated.
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, -1)  # [B, S, N, 2, H/2]
    sign = jnp.array([-1.0, 1.0]).reshape(1, 1, 1, 2, 1)
    turned = halves * cos + halves[..., ::-1, :] * (sin * sign)
    return turned.reshape(x.shape).astype(x.dtype)
