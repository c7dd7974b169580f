"""The kernels of `flash_attention`: one block of queries, or of keys, in each program.

They are written in Pallas for Triton. A program reads the blocks on the other side that
its table names: first those that are seen whole, for which there is no mask to compute,
then those that are seen in part.

Source: FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as gpu

from jaxrl_reason.models.attention import MASKED, Columns, sees

Ref = Any


class Scoring(NamedTuple):
    """What a kernel must know of its model.

    Attributes:
      head_dim: H; blocks have the next power of two, behind H other heads' numbers.
      block_q: queries in a block.
      block_k: keys in a block.
      softcap: c, if scores x become c tanh(x / c).
    """

    head_dim: int
    block_q: int
    block_k: int
    softcap: float | None

    @property
    def scale(self) -> float:
        """Of the scores: arXiv 1706.03762, equation 1."""
        return float(self.head_dim**-0.5)

    def capped(self, products: jax.Array) -> tuple[jax.Array, jax.Array | float]:
        """Scores of products of queries and keys, and their slope before the scale."""
        scores = products * self.scale
        if self.softcap is None:
            return scores, 1.0
        bent = jnp.tanh(scores / self.softcap)
        return self.softcap * bent, 1.0 - bent * bent


def flash_forward(
    table: Ref,
    counts: Ref,
    window: Ref,
    at_q: Ref,
    at_k: Ref,
    q: Ref,
    k: Ref,
    v: Ref,
    context: Ref,
    log_totals: Ref,
    *,
    of: Scoring,
) -> None:
    """Context and log of the softmax's denominator of one block of queries.

    Args:
      table: [Nk] blocks of keys.
      counts: [2] how many of them are seen whole, and how many are seen.
      window: [1] how many positions a query looks back, its own among them.
      at_q: [C, block_q] what stands in the columns of q: a `Columns`, stacked.
      at_k: [C, T] what stands in the columns of k.
      q: [block_q, H].
      k: [T, H].
      v: [T, H].
      context: [block_q, H] output.
      log_totals: [block_q] output.
      of: the rest.
    """
    queries = load_head(q, of)
    size = (of.block_q, queries.shape[1])

    def add(sums: Any, span: Any, visible: Callable[..., Any]) -> Any:
        top, total, context = sums
        scores, _ = of.capped(gpu.dot(queries, load_head(k, of, span).T))
        scores = visible(scores)  # [block_q, block_k]
        higher = jnp.maximum(top, jnp.max(scores, axis=1))
        weights, old = jnp.exp(scores - higher[:, None]), jnp.exp(top - higher)
        total = total * old + jnp.sum(weights, axis=1)
        values = load_head(v, of, span)
        more = gpu.dot(weights.astype(values.dtype), values)
        return higher, total, context * old[:, None] + more

    start = (
        jnp.full(of.block_q, MASKED, jnp.float32),
        jnp.zeros(of.block_q, jnp.float32),
        jnp.zeros(size, jnp.float32),
    )
    top, total, found = _over_keys(add, start, table, counts, window, at_q, at_k, of)
    seeing = top > MASKED
    total = jnp.where(seeing, total, 1.0)
    found = jnp.where(seeing[:, None], found / total[:, None], 0.0)
    store_head(context, of, found)
    log_totals[...] = jnp.where(seeing, top + jnp.log(total), 0.0)


def flash_backward_queries(
    table: Ref,
    counts: Ref,
    window: Ref,
    at_q: Ref,
    at_k: Ref,
    q: Ref,
    k: Ref,
    v: Ref,
    gradient: Ref,
    log_totals: Ref,
    means: Ref,
    dq: Ref,
    *,
    of: Scoring,
) -> None:
    """The gradient of one block of queries.

    Args:
      table: as all before q in `flash_forward`.
      counts: the same.
      window: the same.
      at_q: the same.
      at_k: the same.
      q: [block_q, H].
      k: [T, H].
      v: [T, H].
      gradient: [block_q, H] of the context.
      log_totals: [block_q] of the pass forward.
      means: [block_q] sums of context times its gradient.
      dq: [block_q, H] output.
      of: the rest.
    """
    queries, slopes = load_head(q, of), load_head(gradient, of)
    log_total, mean = log_totals[...][:, None], means[...][:, None]

    def add(dq: Any, span: Any, visible: Callable[..., Any]) -> Any:
        keys = load_head(k, of, span)
        scores, bend = of.capped(gpu.dot(queries, keys.T))
        weights = jnp.exp(visible(scores) - log_total)  # [block_q, block_k]
        by_weight = gpu.dot(slopes, load_head(v, of, span).T)
        slope = weights * (by_weight - mean) * bend
        return dq + gpu.dot(slope.astype(keys.dtype), keys)

    start = jnp.zeros(queries.shape, jnp.float32)
    found = _over_keys(add, start, table, counts, window, at_q, at_k, of)
    store_head(dq, of, found * of.scale)


def flash_backward_keys(
    table: Ref,
    counts: Ref,
    window: Ref,
    at_q: Ref,
    at_k: Ref,
    q: Ref,
    k: Ref,
    v: Ref,
    gradient: Ref,
    log_totals: Ref,
    means: Ref,
    dk: Ref,
    dv: Ref,
    *,
    of: Scoring,
) -> None:
    """Gradients of one block of keys and values, by R query heads that read them.

    Scores stand here as [block_k, block_q], so that the weights are a left factor.

    Args:
      table: [Nq] blocks of queries.
      counts: [2] how many of them see all of this block, and how many see some of it.
      window: [1] how many positions a query looks back, its own among them.
      at_q: [C, S] what stands in the columns of q.
      at_k: [C, block_k] what stands in the columns of k.
      q: [S, R, H].
      k: [block_k, H].
      v: [block_k, H].
      gradient: [S, R, H] of the context.
      log_totals: [R, S] of the pass forward.
      means: [R, S] sums of context times its gradient.
      dk: [block_k, H] output.
      dv: [block_k, H] output.
      of: the rest.
    """
    keys, values = load_head(k, of), load_head(v, of)

    def of_head(head: Any, sums: Any) -> Any:
        def step(masked: bool) -> Callable[..., Any]:
            def run(i: jax.Array, sums: Any) -> Any:
                (dk, dv), span = sums, pl.ds(table[i] * of.block_q, of.block_q)
                queries = load_head(q, of, span, head)
                slopes = load_head(gradient, of, span, head)
                scores, bend = of.capped(gpu.dot(keys, queries.T))
                if masked:
                    ours, theirs = _columns(at_k, slice(None)), _columns(at_q, span)
                    seen = sees(_spread(theirs, 0), _spread(ours, 1), window[0])
                    scores = jnp.where(seen, scores, MASKED)
                # [block_k, block_q]
                weights = jnp.exp(scores - log_totals[head, span][None])
                dv = dv + gpu.dot(weights.astype(slopes.dtype), slopes)
                by_weight = gpu.dot(values, slopes.T)
                slope = weights * (by_weight - means[head, span][None]) * bend
                return dk + gpu.dot(slope.astype(queries.dtype), queries), dv

            return run

        return _in_turn(step, sums, counts)

    zeros = jnp.zeros(keys.shape, jnp.float32)
    heads, start = log_totals.shape[0], (zeros, zeros)
    if heads == 1:
        found = of_head(jnp.int32(0), start)
    else:
        found = jax.lax.fori_loop(0, heads, of_head, start)
    store_head(dk, of, found[0] * of.scale)
    store_head(dv, of, found[1])


def _over_keys(
    add: Callable[..., Any],
    start: Any,
    table: Ref,
    counts: Ref,
    window: Ref,
    at_q: Ref,
    at_k: Ref,
    of: Scoring,
) -> Any:
    """Sums up `add(sums, span of keys, function that masks scores)`."""

    def step(masked: bool) -> Callable[..., Any]:
        def run(i: jax.Array, sums: Any) -> Any:
            span = pl.ds(table[i] * of.block_k, of.block_k)

            def visible(scores: jax.Array) -> jax.Array:
                if not masked:
                    return scores
                ours, theirs = _columns(at_q, slice(None)), _columns(at_k, span)
                seen = sees(_spread(ours, 1), _spread(theirs, 0), window[0])
                return jnp.where(seen, scores, MASKED)

            return add(sums, span, visible)

        return run

    return _in_turn(step, start, counts)


def _in_turn(step: Callable[[bool], Any], start: Any, counts: Ref) -> Any:
    """Blocks that are seen whole, then those that are seen in part."""
    whole, number = counts[0], counts[1]
    sums = jax.lax.fori_loop(0, whole, step(False), start)
    return jax.lax.fori_loop(whole, number, step(True), sums)


def _columns(ref: Ref, span: Any) -> Columns:
    parts = [ref[i, span] for i in range(ref.shape[0])]
    return Columns(*parts)


def _spread(columns: Columns, axis: int) -> Columns:
    return jax.tree.map(lambda x: jnp.expand_dims(x, axis), columns)


def load_head(ref: Ref, of: Scoring, *at: Any) -> jax.Array:
    """Columns of a head, with zeros behind its H numbers.

    Args:
      ref: [S, H] or [S, R, H].
      of: names H.
      *at: the columns, all if none are named, and the head.
    """
    at = (*(at or (slice(None),)), slice(None))
    size = ref.shape[-1]
    if size == of.head_dim:
        return ref[at]
    inside = (jnp.arange(size) < of.head_dim)[None]
    return gpu.load(ref.at[at], mask=inside, other=0.0)


def store_head(ref: Ref, of: Scoring, found: jax.Array) -> None:
    """Writes the H numbers of a head.

    Args:
      ref: [S, H].
      of: names H.
      found: to be written.
    """
    inside = (jnp.arange(ref.shape[1]) < of.head_dim)[None]
    gpu.store(ref, found.astype(ref.dtype), mask=inside)
