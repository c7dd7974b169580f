"""Attention: where a token stands, who sees whom, and the softmax.

Whole rows (training, prefill) go through `plain_attention`, or in blocks of columns
through `chunked_attention` or `splash_attention`, which agree with it; one token per
row over caches (decoding) goes through `cached_attention`. All but the kernel make
scores ready for the softmax with `mask_scores`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.rope_scaling import RopeScaling

# Finite, so that a row with nothing to attend to (padding) gives an average and finite
# gradients instead of nan.
MASKED = -1e30
# As a window: beyond any position.
NO_WINDOW = 2**30
# The name of its results where a backward pass chooses what it recomputes.
ATTENTION = "attention"

# Cosines and sines.
RopeTable = tuple[jax.Array, jax.Array]
# One per kind of layer; layers of a kind have the same window.
Masks = tuple[jax.Array, ...]


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
      positions: [...] integers.
      head_dim: H, even.
      base: base of the frequencies.
      scaling: how the frequencies are scaled to a longer context.

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
    """Rotates each pair of dimensions by its position times its frequency.

    Dimension i is paired with i + H/2 (the half-split order of published checkpoints),
    not with its neighbour as in the paper; the two orders differ by a permutation of
    the weights.

    Args:
      x: [B, S, N, H].
      table: cosines and sines, each [B, S, H/2].

    Returns:
      [B, S, N, H] in the type of x, rotated in float32.
    """
    cos, sin = (part[:, :, None, None, :] for part in table)  # [B, S, 1, 1, H/2]
    # The halves, and the halves swapped, without a concatenation.
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, -1)  # [B, S, N, 2, H/2]
    sign = jnp.array([-1.0, 1.0]).reshape(1, 1, 1, 2, 1)
    turned = halves * cos + halves[..., ::-1, :] * (sin * sign)
    return turned.reshape(x.shape).astype(x.dtype)


class Columns(NamedTuple):
    """What stands in the columns of rows: whole numbers, each [B, S].

    Attributes:
      places: a query sees no key of a later place; the number of the column.
      segments: a query sees keys of its own segment; 0 is padding, which sees nothing.
      positions: of the token in its own sequence; what a window counts.
      branches: where a segment has several continuations of one text: columns of
        branch 0, the text, are seen by all of their segment, others by their own
        branch. None if no segment has.
    """

    places: jax.Array
    segments: jax.Array
    positions: jax.Array
    branches: jax.Array | None = None


def layer_windows(config: TransformerConfig) -> tuple[list[int], list[int]]:
    """How many positions the queries of each layer look back.

    Returns:
      The windows of the kinds of layers, and the kind of each layer, L numbers.

    >>> config = TransformerConfig(
    ...     vocab_size=8, hidden_size=4, num_layers=3, num_heads=2, num_kv_heads=1,
    ...     head_dim=2, mlp_dim=8, context_length=16,
    ...     sliding_window=2, full_attention_layers=(1,))
    >>> windows, kinds = layer_windows(config)
    >>> windows == [2, NO_WINDOW], kinds
    (True, [0, 1, 0])
    """
    windows = [
        config.sliding_window
        if config.sliding_window and layer not in config.full_attention_layers
        else NO_WINDOW
        for layer in range(config.num_layers)
    ]
    kinds = list(dict.fromkeys(windows))
    return kinds, [kinds.index(window) for window in windows]


def mask_scores(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The input of the softmax: the score where the mask is True.

    Args:
      scores: [..., T] float32.
      mask: bool, of the same rank.
    """
    return jnp.where(mask, scores, MASKED)


def sees(queries: Columns, keys: Columns, window: jax.Array | int) -> jax.Array:
    """Whether queries see keys, of columns whose arrays broadcast.

    A query sees the keys of its own segment, if that is not 0, in no later place than
    its own; of branch 0 or its own branch; and inside the window.

    Args:
      queries: what stands in the columns of queries.
      keys: what stands in the columns of keys.
      window: [] how many positions a query looks back, its own among them.
    """
    mask = (queries.segments == keys.segments) & (queries.segments != 0)
    mask &= keys.places <= queries.places
    if queries.branches is not None and keys.branches is not None:
        mask &= (keys.branches == 0) | (keys.branches == queries.branches)
    return mask & (queries.positions - keys.positions < window)


def scores_of(
    q: jax.Array,
    k: jax.Array,
    queries: Columns,
    keys: Columns,
    window: jax.Array | int,
    softcap: float | None = None,
) -> jax.Array:
    """Scores of whole rows, or of blocks of them, ready for the softmax.

    Args:
      q: [B, K, R*S, H], the R = N/K query heads of each key head side by side.
      k: [B, K, T, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T].
      window: [] how many positions a query looks back, its own among them.
      softcap: c, if scores x become c tanh(x / c). Gemma 2, arXiv 2408.00118,
        section 2.

    Returns:
      [B, K, R*S, T] float32.
    """
    # Source of the scale, here and below: arXiv 1706.03762, equation 1.
    rows = q * q.shape[-1] ** -0.5
    scores = jnp.einsum("bkqh,bksh->bkqs", rows, k, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    of_q = jax.tree.map(lambda x: x[:, :, None], queries)  # [B, S, 1]
    of_k = jax.tree.map(lambda x: x[:, None], keys)  # [B, 1, T]
    mask = sees(of_q, of_k, window)  # [B, S, T]
    by_head = scores.reshape(*k.shape[:2], -1, *mask.shape[1:])  # [B, K, R, S, T]
    return mask_scores(by_head, mask[:, None, None]).reshape(scores.shape)


def plain_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Columns,
    keys: Columns,
    window: jax.Array | int,
    softcap: float | None = None,
) -> jax.Array:
    """Grouped-query attention: head n reads key-value head n // (N/K).

    The queries of one key-value head are laid side by side, so that every product is
    a plain batched matrix product; a five-dimensional einsum lowers to one several
    times slower on a CPU. It holds all weights, [B, N, S, T]: the reference of
    `chunked_attention`.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H].
      v: [B, T, K, H].
      queries: what stands in the columns of q, each [B, S].
      keys: what stands in the columns of k, each [B, T].
      window: [] how many positions a query looks back, its own among them.
      softcap: as in `scores_of`.

    Returns:
      [B, S, N, H] in the type of v; scores and softmax in float32.
    """
    batch, size, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    rows = q.transpose(0, 2, 1, 3).reshape(batch, kv_heads, -1, head_dim)
    scores = scores_of(rows, k.swapaxes(1, 2), queries, keys, window, softcap)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)  # [B, K, R*S, T]
    context = jnp.einsum("bkqs,bskh->bkqh", weights, v)  # [B, K, R*S, H]
    context = context.reshape(batch, heads, size, head_dim)  # [B, N, S, H]
    return context.transpose(0, 2, 1, 3)  # [B, S, N, H]


class CachedColumns(Protocol):
    """Keys and values of T columns, in any memory layout."""

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, T] float32."""
        ...

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, T] times the values: [B, K, R, H] float32."""
        ...


def cached_attention(
    q: jax.Array, caches: Sequence[CachedColumns], masks: Sequence[jax.Array]
) -> jax.Array:
    """One softmax over several caches, for one token of each row.

    Args:
      q: [B, K, R, H]; R = N/K query heads read each key-value head.
      caches: the columns that each row reads.
      masks: [B or 1, T] bool for each cache, True where attended.

    Returns:
      [B, K, R, H] float32; scores and softmax in float32.
    """
    q = q * q.shape[-1] ** -0.5
    scores = [
        mask_scores(cache.scores(q), mask[:, None, None])  # [B, K, R, T]
        for cache, mask in zip(caches, masks, strict=True)
    ]
    tops = [jnp.max(part, axis=-1, keepdims=True) for part in scores]
    top = functools.reduce(jnp.maximum, tops)  # [B, K, R, 1]
    weights = [jnp.exp(part - top) for part in scores]
    sums = [jnp.sum(part, axis=-1, keepdims=True) for part in weights]
    total = functools.reduce(jnp.add, sums)  # [B, K, R, 1]
    contexts = [cache.context(x) for cache, x in zip(caches, weights, strict=True)]
    return functools.reduce(jnp.add, contexts) / total  # [B, K, R, H]
