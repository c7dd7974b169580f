"""Blocks of tokens, for what is computed one block at a time: split, mapped, joined."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.losses._math import whole

# From more blocks than these on, the slope of a head is summed in groups of blocks.
_BLOCKS = 32


def map_blocks(function: Callable[[Any], Any], blocks: Any) -> Any:
    """The function of one block after the other, as `jax.lax.map`.

    The slope of what all blocks share, a head, is a sum over them. Many are mapped in
    about as many groups as each has blocks: of 1,000 the sum is 63 additions deep, so
    that float32 keeps its digits, at the cost of one more array of the head's size.
    """
    number = jax.tree.leaves(blocks)[0].shape[0]
    if number <= _BLOCKS:
        return jax.lax.map(function, blocks)
    root = math.isqrt(number)
    size = min(range(root // 2, 2 * root), key=lambda n: -number % n)  # least padding

    def grouped(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, -number % size)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, size, *x.shape[1:])

    each = jax.lax.map(
        functools.partial(jax.lax.map, function), jax.tree.map(grouped, blocks)
    )
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:number], each)


def split_blocks(x: jax.Array, chunk_size: int) -> jax.Array:
    """[B, T, ...] -> [blocks, n, ...], n <= chunk_size, padded with zeros.

    Row i goes to block i % down and token j to block j % across: the major part of both
    axes stays in front, so that an array sharded over devices is split within each of
    them.
    """
    batch, length, *rest = x.shape
    down, across = _number_of_blocks(batch, length, chunk_size)
    rows = math.ceil(batch / down)
    # A mesh with explicit axes may shard the rows, if each device has equally many of
    # each block; it must not shard the tokens, which come after the rows in a block.
    here = jax.typeof(x).sharding
    axes = (here.spec[0],) if isinstance(here.spec[0], str) else here.spec[0] or ()
    devices = math.prod(here.mesh.shape[axis] for axis in axes)
    even = rows * down == batch and rows % devices == 0
    x = whole(x, *range(1 if even else 0, x.ndim))
    pad = [(0, -batch % down), (0, -length % across)] + [(0, 0)] * len(rest)
    x = jnp.pad(x, pad)
    x = x.reshape(x.shape[0] // down, down, x.shape[1] // across, across, *rest)
    x = jnp.moveaxis(x, (1, 3), (0, 1))  # [down, across, b, t, ...]
    x = x.reshape(down * across, *x.shape[2:])
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *rest)


def join_blocks(x: jax.Array, shape: tuple[int, int], chunk_size: int) -> jax.Array:
    """[blocks, n] -> [B, T], the inverse of `split_blocks`."""
    batch, length = shape
    down, across = _number_of_blocks(batch, length, chunk_size)
    x = x.reshape(x.shape[0], math.ceil(batch / down), math.ceil(length / across))
    x = x.reshape(down, across, *x.shape[1:])
    x = x.transpose(2, 0, 3, 1)  # [b, down, t, across]
    x = x.reshape(x.shape[0] * down, x.shape[2] * across)
    return x[:batch, :length]


def _number_of_blocks(batch: int, length: int, chunk_size: int) -> tuple[int, int]:
    """The number of blocks along B and T; T is divided first."""
    down = math.ceil(batch / chunk_size)
    across = math.ceil(length / max(1, chunk_size // max(1, batch)))
    return max(1, down), max(1, across)
