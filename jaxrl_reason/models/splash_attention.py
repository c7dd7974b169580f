"""Attention of whole rows by the splash kernel for TPUs, which never holds [S, S].

The kernel masks by the number of a column, by equal segment ids and by a window that
counts columns. Branches are no part of its masks; they go into the scores: a few more
numbers in each head of a query and of a key, whose product is 0 where the query sees
the key's branch, and so far below 0 elsewhere that the weight is exactly 0.

Source of the kernel: `jax.experimental.pallas.ops.tpu.splash_attention`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from jaxrl_reason.models.attention import ATTENTION, NO_WINDOW, Columns

# Columns that the kernel takes at once: at least the lanes of a TPU, at most what
# leaves room in its memory for a head of 256 numbers.
LANES, LARGEST_BLOCK = 128, 512
# Its exponential is 0 in every type; a power of two, so that it is exact in bfloat16.
APART = 8192.0


def serves(columns: Columns, windows: list[int], softcap: float | None) -> bool:
    """Whether the kernel can compute what these rows need.

    Positions in branches go on from their text, but a window of the kernel counts
    columns; and a soft cap would lift what `branch_heads` puts far below 0.
    """
    whole = windows == [NO_WINDOW] and softcap is None
    return columns.branches is None or whole


def branch_heads(
    q: jax.Array, k: jax.Array, of_queries: jax.Array, of_keys: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Heads with 2n more numbers, n the bits of a branch's number.

    For each bit, APART times (b_q, 1 - b_q) with the query and -(1 - b_k, -b_k) with
    the key: -APART for every bit in which they differ, and sums of zeros, which round
    nothing, if none does. Branch 0 has zeros only: it sees no other (they are in later
    columns) and is seen by all.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H].
      of_queries: [B, S] branches.
      of_keys: [B, T] branches.

    Returns:
      [B, S, N, H + 2n] and [B, T, K, H + 2n].
    """
    bits = jnp.arange(k.shape[1].bit_length())[None, None]  # a branch has a column

    def more(x: jax.Array, ids: jax.Array, ours: Any) -> jax.Array:
        digits = (ids[..., None] >> bits) & 1  # [B, S, n]
        numbers = jnp.concatenate(ours(digits), axis=-1)  # [B, S, 2n]
        numbers = jnp.where(ids[..., None] > 0, numbers, 0)[:, :, None]
        shape = (*x.shape[:3], numbers.shape[-1])
        return jnp.concatenate(
            [x, jnp.broadcast_to(numbers, shape).astype(x.dtype)], axis=-1
        )

    q = more(q, of_queries, lambda b: [APART * b, APART * (1 - b)])
    return q, more(k, of_keys, lambda b: [b - 1, -b])


def splash_kernel(
    heads: int,
    sizes: tuple[int, int],
    offset: int,
    window: int,
    softcap: float | None,
    **how: Any,
) -> splash.SplashAttentionKernel:
    """The kernel for queries [N, S, H] and keys [K, T, H].

    Args:
      heads: N.
      sizes: S and T, multiples of 128.
      offset: the column of the keys at which the queries begin.
      window: how many columns a query looks back, its own among them.
      softcap: c, if scores x become c tanh(x / c).
      **how: `q_seq_shards`, between how many devices the queries' columns are split,
        and `interpret`, to run without a TPU.
    """
    mask: masks.Mask = masks.CausalMask(sizes, offset)
    if window < sizes[1]:
        mask = masks.LocalMask(sizes, (window - 1, 0), offset)
    shards = how["q_seq_shards"]
    of_q, of_k = (math.gcd(n, LARGEST_BLOCK) for n in (sizes[0] // shards, sizes[1]))
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            block_q=of_q,
            block_kv=of_k,
            block_q_dkv=of_q,
            block_kv_dkv=of_k,
            block_q_dq=of_q,
            block_kv_dq=of_k,
        ),
        head_shards=1,
        residual_checkpoint_name=ATTENTION,
        attn_logits_soft_cap=softcap,
        **how,
    )


def splash_rows(
    kernel: splash.SplashAttentionKernel,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
) -> jax.Array:
    """`plain_attention` by a kernel, of rows that are padded to its blocks.

    Args:
      kernel: made for these sizes.
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T].

    Returns:
      [B, S, N, H] in the type of v; anything finite at padding.
    """
    q = q * q.shape[-1] ** -0.5
    if queries.branches is not None and keys.branches is not None:
        q, k = branch_heads(q, k, queries.branches, keys.branches)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # [B, N, S, H]
    ids = splash.SegmentIds(queries.segments, keys.segments)
    context: Any = jax.vmap(kernel)(q, k, v, ids)
    return context.swapaxes(1, 2).astype(v.dtype)  # [B, S, N, H]


def pad_columns(x: jax.Array, multiple: int) -> jax.Array:
    """[B, S, ...] with zeros behind, which is padding, up to a multiple of columns."""
    room = [(0, 0)] * x.ndim
    room[1] = (0, -x.shape[1] % multiple)
    return jnp.pad(x, room) if room[1][1] else x
