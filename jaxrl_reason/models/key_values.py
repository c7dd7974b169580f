"""Keys and values as a batch sampler keeps them: in blocks, and maybe in few bits."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

CACHE_DTYPES = ("float32", "bfloat16", "int8")
# A CPU's product of a few rows with a wider matrix first copies the matrix into blocks;
# one of this width is read as it lies, three times as fast.
CPU_BLOCK = 16


@flax.struct.dataclass
class KeyValues:
    """Keys and values of n rows in one layer.

    Attributes:
      keys: [n, K, T/b, H, b], already rotated: the columns in blocks of b.
      values: [n, K, H/c, T, c]: each head in blocks of c numbers.
      key_scales: [n, K, T] float32 to multiply int8 keys by, else None.
      value_scales: the same of the values.
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


def rounded(size: int, block: int) -> int:
    """The columns of whole blocks that hold `size`.

    >>> rounded(20, 16), rounded(20, 0)
    (32, 20)
    """
    return -(-size // block) * block if block else size


def block_sizes(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    """`KeyValues.blocks` of [n, K, T, H].

    >>> block_sizes((1, 1, 32, 64), 16), block_sizes((1, 1, 32, 64), 0)
    ((16, 16), (32, 64))
    """
    size, head = shape[2:]
    return block or size, block if block and head % block == 0 else head


def stored(
    keys: jax.Array, values: jax.Array, dtype: str, blocks: tuple[int, int]
) -> KeyValues:
    """Keys and values [n, K, T, H] as they are kept, T to whole blocks.

    int8 has one scale a row, head and column: the largest magnitude of the H numbers
    over 127.
    """
    room = [(0, 0)] * 4
    room[2] = (0, rounded(keys.shape[2], blocks[0]) - keys.shape[2])
    keys, values = jnp.pad(keys, room), jnp.pad(values, room)
    key_scales = value_scales = None
    if dtype == "int8":
        keys, key_scales = _in_bytes(keys)
        values, value_scales = _in_bytes(values)
    else:
        keys, values = keys.astype(dtype), values.astype(dtype)
    keys = _cut_last(keys.swapaxes(2, 3), blocks[0])
    return KeyValues(keys, _cut_last(values, blocks[1]), key_scales, value_scales)


def _cut_last(x: jax.Array, block: int) -> jax.Array:
    """[n, K, i, j*block] -> [n, K, j, i, block]."""
    return x.reshape(*x.shape[:3], -1, block).swapaxes(2, 3)


def _in_bytes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = x.astype(jnp.float32)
    scales = jnp.max(jnp.abs(wide), axis=-1) / 127
    whole = jnp.round(wide / jnp.where(scales > 0, scales, 1.0)[..., None])
    return whole.astype(jnp.int8), scales


def written(kept: KeyValues, new: KeyValues, row: Any, column: Any) -> KeyValues:
    """`kept` with `new` laid over it from a row and a column on.

    `new` has blocks of as many columns, or is one column.
    """

    def put(x: Any, y: Any, at: tuple[Any, ...]) -> Any:
        return None if x is None else jax.lax.dynamic_update_slice(x, y, at)

    block, place = divmod(column, kept.blocks[0])
    return KeyValues(
        put(kept.keys, new.keys, (row, 0, block, 0, place)),
        put(kept.values, new.values, (row, 0, 0, column, 0)),
        put(kept.key_scales, new.key_scales, (row, 0, column)),
        put(kept.value_scales, new.value_scales, (row, 0, column)),
    )


def turned(kept: KeyValues, step: jax.Array, size: int, block: int) -> KeyValues:
    """A ring of more columns: the oldest first, and room behind the newest.

    The step that goes with it is the old ring's size.
    """

    def turn(x: jax.Array | None, axis: int) -> Any:
        if x is None:
            return None
        x = jnp.roll(x, -step % x.shape[axis], axis)
        room = [(0, 0)] * x.ndim
        room[axis] = (0, size - x.shape[axis])
        return jnp.pad(x, room)

    keys = kept.keys.swapaxes(2, 3)
    keys = turn(keys.reshape(*keys.shape[:3], -1), 3)
    return KeyValues(
        _cut_last(keys, block or size),
        turn(kept.values, 3),
        turn(kept.key_scales, 2),
        turn(kept.value_scales, 2),
    )
