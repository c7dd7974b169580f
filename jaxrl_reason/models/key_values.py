"""Keys and values as a batch sampler stores them: in blocks, optionally in int8."""

from functools import cache
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

CACHE_DTYPES = ("float32", "bfloat16", "int8")
# A CPU's product of a few rows with a wider matrix first copies the matrix into blocks;
# one of this width is read in place, three times as fast.
CPU_BLOCK = 16


@cache
def _wide_vectors() -> bool:
    """Whether the CPU has 512-bit vectors; its products want blocks twice as wide."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and " avx512f " in flags.read_text()


@flax.struct.dataclass
class KeyValues:
    """Keys and values of n rows in one layer.

    Attributes:
      keys: [n, K, T/b, H, b], already rotated: the columns in blocks of b.
      values: [n, K, H/c, T, c]: each head in blocks of c dimensions.
      key_scales: [n, K, T] float32 scales of int8 keys, else None.
      value_scales: the same for the values.
    """

    keys: jax.Array
    values: jax.Array
    key_scales: jax.Array | None
    value_scales: jax.Array | None

    @property
    def size(self) -> int:
        """T."""
        return int(self.values.shape[3])

    @property
    def blocks(self) -> tuple[int, int]:
        """b and c."""
        return int(self.keys.shape[4]), int(self.values.shape[4])

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, T] float32.

        B/n neighbouring rows of q read each row of the cache.
        """
        rows = self._by_row(q.astype(jnp.float32))  # [n, K, Q, H], Q = B/n * R
        n, kv_heads, blocks, head, _ = self.keys.shape
        # One product per block: einsum would gather the blocks into a copy.
        shape = (n, kv_heads, blocks, rows.shape[2], head)
        rows = jnp.broadcast_to(rows[:, :, None], shape)  # [n, K, blocks, Q, ...]
        keys = self.keys.astype(rows.dtype)
        scores = _join_blocks(jnp.einsum("nkbqh,nkbht->nkbqt", rows, keys))
        if self.key_scales is not None:
            scores = scores * self.key_scales[:, :, None]  # [n, K, Q, T]
        return self._by_query(scores, q.shape[2])

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, T] times the values: [B, K, R, H] float32."""
        rows = self._by_row(weights)  # [n, K, Q, T]
        if self.value_scales is not None:
            rows = rows * self.value_scales[:, :, None]
        n, kv_heads, blocks, size, _ = self.values.shape
        shape = (n, kv_heads, blocks, rows.shape[2], size)
        rows = jnp.broadcast_to(rows[:, :, None], shape)
        values = self.values.astype(rows.dtype)
        context = _join_blocks(jnp.einsum("nkbqt,nkbth->nkbqh", rows, values))
        return self._by_query(context, weights.shape[2])

    def _by_row(self, x: jax.Array) -> jax.Array:
        """[B, K, R, m] -> [n, K, B/n*R, m]: the queries of a cache row together."""
        rows, batch = self.values.shape[0], x.shape[0]
        # [n, B/n, K, R, m] -> [n, K, B/n, R, m]
        x = x.reshape(rows, batch // rows, *x.shape[1:]).swapaxes(1, 2)
        return x.reshape(rows, x.shape[1], -1, x.shape[-1])

    def _by_query(self, x: jax.Array, group: int) -> jax.Array:
        """[n, K, B/n*R, m] -> [B, K, R, m], R being `group`."""
        rows, kv_heads = x.shape[:2]
        # [n, K, B/n, R, m] -> [n, B/n, K, R, m]
        x = x.reshape(rows, kv_heads, -1, group, x.shape[-1]).swapaxes(1, 2)
        return x.reshape(-1, kv_heads, group, x.shape[-1])


def round_up(size: int, block: int) -> int:
    """`size` rounded up to whole blocks.

    >>> round_up(20, 16), round_up(20, 0)
    (32, 20)
    """
    return -(-size // block) * block if block else size


def block_sizes(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """`KeyValues.blocks` of [n, K, T, H].

    Blocks of CPU_BLOCK are joined in pairs where the CPU's vectors are wide. Two of
    them stay: XLA copies a cache of a single block each time that a column is written.

    >>> block_sizes((1, 1, 32, 32), 16), block_sizes((1, 1, 32, 64), 0)
    ((16, 16), (32, 64))
    """

    def of(size: int) -> int:
        if block == CPU_BLOCK and _wide_vectors() and size % (2 * block) == 0:
            return min(2 * block, size // 2)
        return block if block and size % block == 0 else size

    size, head = shape[2:]
    return of(round_up(size, block)), of(head)


def quantize(
    keys: jax.Array, values: jax.Array, dtype: str, blocks: tuple[int, int]
) -> KeyValues:
    """Keys and values [n, K, T, H] in stored form, T padded to whole blocks.

    int8 has one scale per row, head and column: the largest magnitude of the H numbers
    divided by 127.
    """
    room = [(0, 0)] * 4
    room[2] = (0, round_up(keys.shape[2], blocks[0]) - keys.shape[2])
    keys, values = jnp.pad(keys, room), jnp.pad(values, room)  # [n, K, T, H]
    key_scales = value_scales = None
    if dtype == "int8":
        keys, key_scales = _to_int8(keys)
        values, value_scales = _to_int8(values)
    else:
        keys, values = keys.astype(dtype), values.astype(dtype)
    keys = _split_last(keys.swapaxes(2, 3), blocks[0])
    return KeyValues(keys, _split_last(values, blocks[1]), key_scales, value_scales)


def _split_last(x: jax.Array, block: int) -> jax.Array:
    """[n, K, i, j*block] -> [n, K, j, i, block]."""
    return x.reshape(*x.shape[:3], -1, block).swapaxes(2, 3)


def _join_blocks(x: jax.Array) -> jax.Array:
    """[n, K, blocks, Q, block] -> [n, K, Q, blocks*block]."""
    x = x.swapaxes(2, 3)  # [n, K, Q, blocks, block]
    return x.reshape(*x.shape[:3], -1)


def _to_int8(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = x.astype(jnp.float32)  # [n, K, T, H]
    scales = jnp.max(jnp.abs(wide), axis=-1) / 127  # [n, K, T]
    whole = jnp.round(wide / jnp.where(scales > 0, scales, 1.0)[..., None])
    return whole.astype(jnp.int8), scales


def update_slice(cached: KeyValues, new: KeyValues, row: Any, column: Any) -> KeyValues:
    """`cached` with `new` written into it, starting at a row and a column.

    `new` has blocks of the same size, or is one column.
    """

    def put(x: Any, y: Any, at: tuple[Any, ...]) -> Any:
        return None if x is None else jax.lax.dynamic_update_slice(x, y, at)

    block, place = divmod(column, cached.blocks[0])
    return KeyValues(
        put(cached.keys, new.keys, (row, 0, block, 0, place)),
        put(cached.values, new.values, (row, 0, 0, column, 0)),
        put(cached.key_scales, new.key_scales, (row, 0, column)),
        put(cached.value_scales, new.value_scales, (row, 0, column)),
    )


def roll(cached: KeyValues, step: jax.Array, size: int, block: int) -> KeyValues:
    """A larger ring buffer: the oldest columns first, free space after the newest.

    Its step is the old size, and its blocks are those of `block_sizes`.
    """

    def roll_one(x: jax.Array | None, axis: int) -> Any:
        if x is None:
            return None
        x = jnp.roll(x, -step % x.shape[axis], axis)
        room = [(0, 0)] * x.ndim
        room[axis] = (0, size - x.shape[axis])
        return jnp.pad(x, room)

    keys = cached.keys.swapaxes(2, 3)  # [n, K, H, T/b, b]
    keys = roll_one(keys.reshape(*keys.shape[:3], -1), 3)  # [n, K, H, size]
    columns, _ = block_sizes((*keys.shape[:2], size, keys.shape[2]), block)
    return KeyValues(
        _split_last(keys, columns),
        roll_one(cached.values, 3),
        roll_one(cached.key_scales, 2),
        roll_one(cached.value_scales, 2),
    )
