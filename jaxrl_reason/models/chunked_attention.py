"""Attention of whole rows in blocks of columns: never [S, S], and no block in vain.

The softmax of a query is summed up over blocks of keys (arXiv 2205.14135, algorithm 1);
the backward pass computes the weights of a block again, from the log of each query's
denominator. Which blocks of keys a block of queries needs is read from the rows: what
lies before a segment, after a query, in another branch or outside a window is skipped.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxrl_reason.models.attention import ATTENTION, MASKED, Columns, scores_of
from jaxrl_reason.models.block_sight import block_sight

# Columns per block: enough for quick products, few beside a long row.
BLOCK = 128

product = partial(jnp.einsum, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def chunked_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
    window: jax.Array | int,
    softcap: float | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """`plain_attention` in blocks: the same values and gradients, memory linear in S.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T].
      window: [] how many positions a query looks back, its own among them.
      softcap: c, if scores x become c tanh(x / c); static.
      block: most columns per block, static.

    Returns:
      [B, S, N, H] in the type of v; 0 for a query that sees nothing.
    """
    return _forward(q, k, v, queries, keys, window, softcap, block)[0]


def _forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
    window: jax.Array | int,
    softcap: float | None,
    block: int,
) -> tuple[jax.Array, Any]:
    """The result, and what the backward pass needs."""
    (qs, ks, vs), (at_q, at_k) = _blocks((q, k, v), (queries, keys), block)
    order, number = _needed(at_q, at_k, window)

    def attend(x: Any) -> tuple[jax.Array, jax.Array]:
        q, at_q, order, number = x  # q [B, K, R*b, H]

        def add(n: jax.Array, sums: Any) -> Any:
            (top, total, context), j = sums, order[n]
            keys = jax.tree.map(lambda x: x[j], at_k)
            # [B, K, R*b, b]
            scores = scores_of(q, ks[j], at_q, keys, window, softcap)
            higher = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            weights, old = jnp.exp(scores - higher), jnp.exp(top - higher)
            total = total * old + jnp.sum(weights, axis=-1, keepdims=True)
            more = product("bkqs,bksh->bkqh", weights.astype(v.dtype), vs[j])
            return higher, total, context * old + more

        top = jnp.full((*q.shape[:-1], 1), MASKED)
        start = (top, jnp.zeros_like(top), jnp.zeros(q.shape, jnp.float32))
        top, total, context = jax.lax.fori_loop(0, number, add, start)
        sees = top > MASKED
        context = jnp.where(sees, context / jnp.where(sees, total, 1.0), 0.0)
        log_total = jnp.where(sees, top + jnp.log(total), 0.0)
        return context.astype(v.dtype), log_total

    context, log_totals = jax.lax.map(attend, (qs, at_q, order, number))
    context = checkpoint_name(_rows(context, q.shape), ATTENTION)
    log_totals = checkpoint_name(log_totals, ATTENTION)
    return context, (q, k, v, queries, keys, window, context, log_totals)


def _backward(
    softcap: float | None, block: int, kept: Any, gradient: jax.Array
) -> tuple[Any, ...]:
    """Gradients of q, k and v: blocks of queries in turn, each over its keys."""
    q, k, v, queries, keys, window, context, log_totals = kept
    # sum_s w_s dw_s of each query [B, S, N, 1]: what the softmax takes off.
    means = gradient.astype(jnp.float32) * context.astype(jnp.float32)
    means = jnp.sum(means, axis=-1, keepdims=True)
    arrays = (q, gradient, means, k, v)
    (qs, gs, means, ks, vs), (at_q, at_k) = _blocks(arrays, (queries, keys), block)
    order, number = _needed(at_q, at_k, window)

    def attend(grads: Any, x: Any) -> tuple[Any, jax.Array]:
        q, at_q, g, mean, log_total, order, number = x

        def add(n: jax.Array, grads: Any) -> Any:
            (dq, dk, dv), j = grads, order[n]
            keys = jax.tree.map(lambda x: x[j], at_k)
            of_block = partial(
                scores_of, queries=at_q, keys=keys, window=window, softcap=softcap
            )
            scores, back = jax.vjp(of_block, q, ks[j])
            weights = jnp.exp(scores - log_total)  # [B, K, R*b, b]
            by_weight = product("bkqh,bksh->bkqs", g, vs[j])
            more_q, more_k = back(weights * (by_weight - mean))
            more_v = product("bkqs,bkqh->bksh", weights.astype(g.dtype), g)
            return dq + more_q, dk.at[j].add(more_k), dv.at[j].add(more_v)

        start = (jnp.zeros(q.shape, jnp.float32), *grads)
        dq, *grads = jax.lax.fori_loop(0, number, add, start)
        return tuple(grads), dq

    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (ks, vs))
    of_queries = (qs, at_q, gs, means, log_totals, order, number)
    (dk, dv), dq = jax.lax.scan(attend, zeros, of_queries)
    pairs = ((dq, q), (dk, k), (dv, v))
    found = [_rows(d, x.shape).astype(x.dtype) for d, x in pairs]
    return *found, None, None, None


chunked_attention.defvjp(_forward, _backward)


def _blocks(
    arrays: tuple[jax.Array, ...], columns: tuple[Columns, Columns], block: int
) -> tuple[list[jax.Array], list[Columns]]:
    """Rows in blocks of b columns, b at most `block`, with zeros behind the last.

    [B, S, N, X] -> [S/b, B, K, R*b, X], where K is that of the last array; and columns
    [B, S] -> [S/b, B, b]. A column of zeros is padding.
    """
    kv_heads = arrays[-1].shape[2]
    longest = max(x.shape[1] for x in arrays)
    number = -(-longest // block)
    block = -(-longest // number)

    def split(x: jax.Array) -> jax.Array:  # [B, S, ...] -> [S/b, B, b, ...]
        behind = -x.shape[1] % block
        x = jnp.pad(x, [(0, 0), (0, behind)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(x.shape[0], -1, block, *x.shape[2:]).swapaxes(0, 1)

    heads = []
    for x in map(split, arrays):
        x = x.reshape(*x.shape[:3], kv_heads, -1, x.shape[-1]).transpose(
            0, 1, 3, 4, 2, 5
        )  # [S/b, B, K, R, b, X]
        heads.append(x.reshape(*x.shape[:3], -1, x.shape[-1]))
    return heads, [jax.tree.map(split, part) for part in columns]


def _rows(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[S/b, B, K, R*b, X] -> [B, S, N, X]: `_blocks` undone."""
    batch, size, heads, last = shape
    number, _, kv_heads = x.shape[:3]
    x = x.reshape(number, batch, kv_heads, heads // kv_heads, -1, last)
    x = x.transpose(1, 0, 4, 2, 3, 5)
    return x.reshape(batch, -1, heads, last)[:, :size]


def _needed(
    queries: Columns, keys: Columns, window: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Which blocks of keys a block of queries may see, by what stands in them.

    Returns:
      order [Nq, Nk], numbers of blocks of keys, the needed ones first; and how many of
      them are needed, [Nq].
    """
    needed, _ = block_sight(queries, keys, window)
    needed = jnp.any(needed, axis=-1)  # [Nq, Nk], for any row
    order = jnp.argsort(~needed, axis=-1, stable=True)
    return order, jnp.sum(needed, axis=-1)
