"""Attention of whole rows by a kernel for GPUs, which never holds [S, S].

The kernels mask as `plain_attention` does, by what stands in the columns, so packed
rows, windows over positions, branches and soft caps are all served, and a window may
differ between the layers of a scan. Which blocks a program reads is a table that is
computed from the rows beforehand.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as gpu

from jaxrl_reason.models.attention import ATTENTION, Columns
from jaxrl_reason.models.block_sight import block_sight
from jaxrl_reason.models.flash_kernels import (
    Scoring,
    flash_backward_keys,
    flash_backward_queries,
    flash_forward,
)
from jaxrl_reason.models.splash_attention import pad_columns

# Every block divides it; rows are padded to a multiple.
COLUMNS = 128
# That keep the multiprocessors of a large GPU busy: several for each.
PROGRAMS = 1024


class Tile(NamedTuple):
    """Sizes of a kernel's programs.

    Attributes:
      block_q: queries in a block.
      block_k: keys in a block.
      warps: of a program.
      stages: blocks on their way from memory.
    """

    block_q: int
    block_k: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """Those of the three kernels.

    Attributes:
      forward: of the pass forward.
      queries: of the gradient of queries.
      keys: of the gradients of keys and values.
    """

    forward: Tile
    queries: Tile
    keys: Tile


# By bytes of a padded head. Compiled for H100 in bfloat16, no kernel runs out of
# registers; none takes more shared memory than the smallest GPU from A100 on has.
TILES = {
    128: Tiles(Tile(128, 64, 4, 3), Tile(64, 64, 4, 3), Tile(64, 64, 4, 3)),
    256: Tiles(Tile(128, 64, 8, 3), Tile(64, 64, 4, 2), Tile(64, 64, 8, 2)),
    512: Tiles(Tile(64, 32, 4, 2), Tile(32, 32, 4, 2), Tile(32, 32, 4, 2)),
    1024: Tiles(Tile(32, 16, 4, 2), Tile(16, 16, 4, 2), Tile(16, 16, 4, 2)),
}


def flash_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
    window: jax.Array | int,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`plain_attention` by a kernel: the same values and gradients.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T].
      window: [] how many positions a query looks back, its own among them.
      softcap: c, if scores x become c tanh(x / c); static.
      interpret: run without a GPU, slowly; static.

    Returns:
      [B, S, N, H] in the type of v; 0 for a query that sees nothing.
    """
    size = q.shape[1]
    of_all = (q, k, v, queries, keys)
    q, k, v, queries, keys = jax.tree.map(lambda x: pad_columns(x, COLUMNS), of_all)
    at_q, at_k = (jnp.stack(jax.tree.leaves(x), axis=1) for x in (queries, keys))
    rows = Rows(q, k, v, at_q, at_k, jnp.reshape(jnp.asarray(window, jnp.int32), 1))
    return _of_rows(rows, softcap, interpret)[:, :size]


class Rows(NamedTuple):
    """Whole blocks of columns.

    Attributes:
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      at_q: [B, C, S] what stands in the columns of q: a `Columns`, stacked.
      at_k: [B, C, T].
      window: [1].
    """

    q: jax.Array
    k: jax.Array
    v: jax.Array
    at_q: jax.Array
    at_k: jax.Array
    window: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _of_rows(rows: Rows, softcap: float | None, interpret: bool) -> jax.Array:
    return _forward(rows, softcap, interpret)[0]


def _forward(
    rows: Rows, softcap: float | None, interpret: bool
) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    batch, size, heads, _ = rows.q.shape
    tile = tiles_of(rows.q).forward
    totals = jax.ShapeDtypeStruct((batch, heads, size), jnp.float32)
    run = partial(_run, softcap=softcap, interpret=interpret)
    like_q = jax.ShapeDtypeStruct(rows.q.shape, rows.v.dtype)
    found = run(flash_forward, tile, "q", rows, (), (like_q, totals))
    context, log_totals = (checkpoint_name(x, ATTENTION) for x in found)
    return context, (rows, context, log_totals)


def _backward(
    softcap: float | None, interpret: bool, kept: Any, gradient: jax.Array
) -> tuple[Rows]:
    """Gradients of q, k and v."""
    rows, context, log_totals = kept
    # sum_s w_s dw_s of each query [B, N, S]: what the softmax takes off.
    means = gradient.astype(jnp.float32) * context.astype(jnp.float32)
    more = (gradient, log_totals, jnp.sum(means, axis=-1).swapaxes(1, 2))
    tiles = tiles_of(rows.q)
    run = partial(_run, softcap=softcap, interpret=interpret)
    [dq] = run(flash_backward_queries, tiles.queries, "q", rows, more, (rows.q,))
    # A program of keys takes all query heads that read them, if there are programs
    # enough without splitting these; else each adds a part.
    batch, size, kv_heads, head_dim = rows.k.shape
    shared = rows.q.shape[2] // kv_heads
    if batch * kv_heads * (size // tiles.keys.block_k) < PROGRAMS:
        shared = 1
    heads = rows.q.shape[2] // shared
    kind = rows.k.dtype if heads == kv_heads else jnp.float32
    part = jax.ShapeDtypeStruct((batch, size, heads, head_dim), kind)
    parts = run(flash_backward_keys, tiles.keys, "k", rows, more, (part, part))
    dk, dv = (
        jnp.sum(x.reshape(batch, size, kv_heads, -1, head_dim), 3).astype(rows.k.dtype)
        for x in parts
    )
    return (Rows(dq, dk, dv, None, None, None),)  # type: ignore[arg-type]


_of_rows.defvjp(_forward, _backward)


def _run(
    kernel: Any,
    tile: Tile,
    per: str,
    rows: Rows,
    more: tuple[jax.Array, ...],
    outputs: tuple[Any, ...],
    softcap: float | None,
    interpret: bool,
) -> list[jax.Array]:
    """Runs a kernel for every block of queries or of keys, head and row.

    Args:
      kernel: of `flash_kernels`.
      tile: its sizes.
      per: "q" or "k": whose blocks its programs are.
      rows: its first arguments.
      more: of a pass backward: the gradient [B, S, N, H] and two [B, N, S].
      outputs: shapes and types of what it writes: [B, S, M, H] or [B, N, S]. A program
        of keys takes the N / M query heads that it adds up.
      softcap: of the scores.
      interpret: run without a GPU.
    """
    batch, _, heads, head_dim = rows.q.shape
    programs = outputs[0].shape[2]
    parts = Parts(rows, tile, per, heads // programs)
    table, counts = tables(rows, tile, per)
    in_specs = [
        pl.BlockSpec((None, None, table.shape[2]), lambda i, n, b: (b, i, 0)),
        pl.BlockSpec((None, None, 2), lambda i, n, b: (b, i, 0)),
        pl.BlockSpec((1,), lambda i, n, b: (0,)),
        parts.columns("q"),
        parts.columns("k"),
        parts.queries(),
        parts.keys(),
        parts.keys(),
        *(parts.numbers() if x.ndim == 3 else parts.queries() for x in more),
    ]
    out_specs = [
        parts.numbers() if len(x.shape) == 3 else parts.written() for x in outputs
    ]
    scoring = Scoring(head_dim, tile.block_q, tile.block_k, softcap)
    return pl.pallas_call(
        partial(kernel, of=scoring),
        grid=(parts.blocks, programs, batch),
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outputs],
        compiler_params=gpu.CompilerParams(
            num_warps=tile.warps, num_stages=tile.stages
        ),
        interpret=interpret,
        name=kernel.__name__,
    )(table, counts, rows.window, rows.at_q, rows.at_k, *rows[:3], *more)


@dataclass(frozen=True)
class Parts:
    """What a program gets of each array: its own block of one side, all of the other.

    Attributes:
      rows: the arrays.
      tile: sizes of the blocks.
      per: "q" or "k": whose blocks the programs are.
      taken: query heads of one program.
    """

    rows: Rows
    tile: Tile
    per: str
    taken: int

    @property
    def blocks(self) -> int:
        """How many blocks the programs' side has."""
        if self.per == "q":
            return int(self.rows.q.shape[1] // self.tile.block_q)
        return int(self.rows.k.shape[1] // self.tile.block_k)

    @property
    def _group(self) -> int | None:
        """The axis of a program's query heads; none where there is one by nature."""
        return None if self.per == "q" else self.taken

    def queries(self) -> pl.BlockSpec:
        """Of [B, S, N, H]."""
        return self._of_heads("q", lambda n: n, self._group)

    def keys(self) -> pl.BlockSpec:
        """Of [B, T, K, H]: the head that a program's query heads read."""
        shared = self.rows.q.shape[2] // self.rows.k.shape[2]
        return self._of_heads("k", lambda n: n * self.taken // shared)

    def written(self) -> pl.BlockSpec:
        """Of [B, S, M, H], an output."""
        return self._of_heads(self.per, lambda n: n)

    def numbers(self) -> pl.BlockSpec:
        """Of [B, N, S]."""
        return self._spec(
            "q", lambda size: (None, self._group, size), lambda i, n, b: (b, n, i)
        )

    def columns(self, side: str) -> pl.BlockSpec:
        """Of [B, C, S]."""
        kinds = self.rows.at_q.shape[1]
        return self._spec(
            side, lambda size: (None, kinds, size), lambda i, n, b: (b, 0, i)
        )

    def _of_heads(self, side: str, head: Any, group: int | None = None) -> pl.BlockSpec:
        padded = padded_head(self.rows.q.shape[3])
        return self._spec(
            side,
            lambda size: (None, size, group, padded),
            lambda i, n, b: (b, i, head(n), 0),
        )

    def _spec(self, side: str, shape: Any, index: Any) -> pl.BlockSpec:
        whole, block = (
            (self.rows.q.shape[1], self.tile.block_q)
            if side == "q"
            else (self.rows.k.shape[1], self.tile.block_k)
        )
        if side == self.per:
            return pl.BlockSpec(shape(block), index)
        return pl.BlockSpec(shape(whole), lambda i, n, b: index(0, n, b))


def tables(rows: Rows, tile: Tile, per: str) -> tuple[jax.Array, jax.Array]:
    """Which blocks each program reads.

    Args:
      rows: whole blocks.
      tile: their sizes.
      per: "q" or "k": whose blocks the programs are.

    Returns:
      [B, Nq, Nk] for queries, [B, Nk, Nq] for keys: numbers of the other side's blocks,
      those that are seen whole first, then those that are seen in part. And how many
      are seen whole and how many are seen, [B, Nq or Nk, 2].
    """

    def split(at: jax.Array, block: int) -> Columns:
        parts = at.reshape(*at.shape[:2], -1, block)  # [B, C, N, b]
        return Columns(*parts.transpose(1, 2, 0, 3))

    some, every = (
        x.transpose(2, 0, 1) if per == "q" else x.transpose(2, 1, 0)
        for x in block_sight(
            split(rows.at_q, tile.block_q),
            split(rows.at_k, tile.block_k),
            rows.window[0],
        )
    )
    rank = jnp.where(every, 0, jnp.where(some, 1, 2))
    counts = jnp.stack([jnp.sum(x, axis=-1) for x in (every, some)], axis=-1)
    order = jnp.argsort(rank, axis=-1, stable=True)
    return order.astype(jnp.int32), counts.astype(jnp.int32)


def serves_heads(q: jax.Array) -> bool:
    """Whether there are sizes for these heads: 256 numbers of any type."""
    return padded_head(q.shape[-1]) * q.dtype.itemsize <= max(TILES)


def padded_head(head_dim: int) -> int:
    """Numbers of a head in a block: a power of two, and enough for a product."""
    return int(max(16, pl.next_power_of_2(head_dim)))


def tiles_of(q: jax.Array) -> Tiles:
    """The sizes for these heads and their type."""
    held = padded_head(q.shape[-1]) * q.dtype.itemsize
    return TILES[min(size for size in TILES if size >= held)]
