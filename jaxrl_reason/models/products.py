"""Products of activations with matrices, in a narrower type than theirs if asked for.

The sides are rounded to bfloat16 and the sums are float32, in the products of the
gradients too; everything between products stays as wide as it was. This is what torch
calls a float32 matmul precision of "medium", and what a TPU does by default.

The forms are those that XLA's CPU backend (jaxlib 0.10) has instructions for: it
multiplies bfloat16 only where the result is float32 and the last axis of the left side
is summed over, and computes all others in float32. A CPU with AMX is then three to five
times as fast as in float32.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# The name of products where a backward pass chooses what it recomputes.
PRODUCT = "product"
# Columns that are turned together; see `_turned`.
TILE = 16
# Columns that are summed over at once: sums over a whole vocabulary take twice as long.
BLOCK = 1_024

_sum = partial(jax.lax.dot_general, preferred_element_type=jnp.float32)


def product(x: jax.Array, w: jax.Array, dtype: str | None = None) -> jax.Array:
    """x w in the type of x.

    Args:
      x: [n, i].
      w: [i, o].
      dtype: that both are rounded to before; None for the type of x.

    Returns:
      [n, o].

    >>> x, w = jnp.full((1, 2), 1 + 2**-9), jnp.full((2, 1), 3.0)
    >>> float(product(x, w)[0, 0]), float(product(x, w, "bfloat16")[0, 0])
    (6.01171875, 6.0)
    """
    if dtype is None or jnp.dtype(dtype) == x.dtype:
        y = x @ w.astype(x.dtype)
    else:
        y = _narrow(x, w, jnp.dtype(dtype), False)
    return checkpoint_name(y, PRODUCT)


def product_with_rows(x: jax.Array, w: jax.Array, dtype: str) -> jax.Array:
    """x w^T like `product`, of a matrix [o, i]: the head, large ones in decoding."""
    return _narrow(x, w, jnp.dtype(dtype), True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow(x: jax.Array, w: jax.Array, dtype: jnp.dtype, by_row: bool) -> jax.Array:
    summed = (((1,), (1 if by_row else 0,)), ((), ()))
    return _sum(x.astype(dtype), w.astype(dtype), summed).astype(x.dtype)


def _backward(
    dtype: jnp.dtype,
    by_row: bool,
    kept: tuple[jax.Array, jax.Array],
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, w = kept
    left, right, slope = x.astype(dtype), w.astype(dtype), dy.astype(dtype)
    if by_row:
        dx = _by_blocks(slope, right)
    else:
        dx = _sum(slope, right, (((1,), (1,)), ((), ())))
    sides = (slope, left) if by_row else (left, slope)
    dw = _sum(_turned(sides[0]), sides[1], (((1,), (0,)), ((), ())))
    # XLA swaps the sides of a product that is transposed behind it, as in a loop over
    # blocks of a head, and then has no instruction for it.
    dx, dw = jax.lax.optimization_barrier((dx, dw))
    return dx.astype(x.dtype), dw.astype(w.dtype)


# What is kept is as it was: XLA's CPU backend widens and rounds all of a bfloat16 array
# for each slice that a scan over layers writes to it.
_narrow.defvjp(
    lambda x, w, dtype, by_row: (_narrow(x, w, dtype, by_row), (x, w)), _backward
)


def _by_blocks(x: jax.Array, w: jax.Array) -> jax.Array:
    """x w of [n, i] and [i, o], float32, one block of i after the other."""
    n, i = x.shape
    fewest = -(-i // BLOCK)
    blocks = next((k for k in range(fewest, 2 * fewest) if i % k == 0), 1)
    size = i // blocks

    def add(k: jax.Array, total: jax.Array) -> jax.Array:
        left = jax.lax.dynamic_slice_in_dim(x, k * size, size, 1)
        right = jax.lax.dynamic_slice_in_dim(w, k * size, size, 0)
        return total + _sum(left, right, (((1,), (0,)), ((), ())))

    zeros = jnp.zeros((n, w.shape[1]), jnp.float32)
    return jax.lax.fori_loop(0, blocks, add, zeros)


def _turned(x: jax.Array) -> jax.Array:
    """x.T of [n, i] in memory; XLA would make a plain transpose part of the product."""
    n, i = x.shape
    if i % TILE or i == TILE:
        return x.T
    tiles = x.reshape(n, i // TILE, TILE).transpose(1, 2, 0)  # [i / TILE, TILE, n]
    return jax.lax.optimization_barrier(tiles.reshape(i, n))
