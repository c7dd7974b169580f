"""Attention: rotary positions, masks and the softmax.

Whole rows (training, prefill) use `self_attention`, one token per row with caches
(decoding) `cached_attention`. Both scale their queries and prepare scores for the
softmax with `mask_scores`; the masks of both come from `layer_masks`. So another scale,
a soft cap, a sink or another window is a change in this file only.
"""

import functools
from collections.abc import Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.rope_scaling import RopeScaling

# Finite, so that a row with nothing to attend to (padding) gives an average and finite
# gradients instead of nan.
MASKED = -1e30

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


def attention_mask(
    segment_ids: jax.Array, branch_ids: jax.Array | None = None
) -> jax.Array:
    """Which columns each column attends to.

    Args:
      segment_ids: [B, S] integers; 0 is padding.
      branch_ids: [B, S] integers, if segments have branches: columns of branch 0 are
        visible to all of their segment, others only to their branch.

    Returns:
      [B, S, S] bool: same non-zero segment, key column <= query column, and a key
      of branch 0 or of the query's branch.
    """
    queries, keys = segment_ids[:, :, None], segment_ids[:, None, :]
    size = segment_ids.shape[1]
    causal = jnp.tril(jnp.ones((1, size, size), dtype=bool))
    mask = (queries == keys) & (queries != 0) & causal  # [B, S, S]
    if branch_ids is None:
        return mask
    queries, keys = branch_ids[:, :, None], branch_ids[:, None, :]
    return mask & ((keys == 0) | (queries == keys))


def layer_masks(
    config: TransformerConfig, mask: jax.Array, ages: jax.Array
) -> tuple[Masks, list[int]]:
    """The mask of each layer: the given mask within the layer's sliding window.

    Args:
      config: has the layers with a window, and its length.
      mask: [..., T] bool, what a token attends to without a window.
      ages: query position minus key position, of the same rank.

    Returns:
      One mask [..., T] per kind of layer, shared by all layers of the kind, and the
      kind of each layer, L numbers.

    >>> config = TransformerConfig(
    ...     vocab_size=8, hidden_size=4, num_layers=3, num_heads=2, num_kv_heads=1,
    ...     head_dim=2, mlp_dim=8, context_length=16,
    ...     sliding_window=2, full_attention_layers=(1,))
    >>> masks, kinds = layer_masks(config, jnp.array([1, 1, 1]), jnp.array([2, 1, 0]))
    >>> [mask.tolist() for mask in masks], kinds
    ([[0, 1, 1], [1, 1, 1]], [0, 1, 0])
    """
    windows = [
        None if layer in config.full_attention_layers else config.sliding_window
        for layer in range(config.num_layers)
    ]
    kinds = list(dict.fromkeys(windows))
    masks = tuple(
        mask if window is None else mask & (ages < window) for window in kinds
    )
    return masks, [kinds.index(window) for window in windows]


def mask_scores(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The input of the softmax: the score where the mask is True.

    Args:
      scores: [..., T] float32.
      mask: bool, of the same rank.
    """
    return jnp.where(mask, scores, MASKED)


def self_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
    """Grouped-query attention: head n reads key-value head n // (N/K).

    The queries of one key-value head are placed next to each other, so that every
    product is a plain batched matrix product; on a CPU a five-dimensional einsum is
    several times slower.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H]; T is S, or more if earlier columns are read too.
      v: [B, T, K, H].
      mask: [B, S, T] bool, True where attended.

    Returns:
      [B, S, N, H] in the type of q; scores and softmax in float32.
    """
    batch, size, heads, head_dim = q.shape
    columns, kv_heads = k.shape[1:3]
    group = heads // kv_heads  # R
    # Source of the scale, here and below: arXiv 1706.03762, equation 1.
    q = (q * head_dim**-0.5).transpose(0, 2, 1, 3)  # [B, N, S, H]
    q = q.reshape(batch, kv_heads, group * size, head_dim)  # [B, K, R*S, H]
    scores = jnp.einsum("bkqh,bskh->bkqs", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, heads, size, columns)  # [B, N, S, T]
    weights = jax.nn.softmax(mask_scores(scores, mask[:, None]), axis=-1)
    weights = weights.astype(v.dtype)  # [B, N, S, T]
    weights = weights.reshape(batch, kv_heads, group * size, columns)
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
