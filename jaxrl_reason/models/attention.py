"""Attention: who sees whom, and the softmax. Every form of it is in this file.

Whole rows (training, prefill) go through `self_attention`, one token per row over
caches (decoding) through `cached_attention`. Both scale their queries by
`scale_queries` and make scores ready for the softmax by `mask_scores`; the masks of
both are made here from positions. So another scale, a soft cap, a sink or another
window is a change of this file.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from jaxrl_reason.models.config import TransformerConfig

# Finite, so that a row with nothing to attend to (padding) gives a plain average and
# finite gradients instead of nan.
MASKED = -1e30

# One [B, S, T] for each kind of layer: every layer of a kind has the same window.
Masks = tuple[jax.Array, ...]
Mask = TypeVar("Mask")


def scale_queries(q: jax.Array) -> jax.Array:
    """q / sqrt(H), for q [..., H]. Source: arXiv 1706.03762, equation 1."""
    return q * q.shape[-1] ** -0.5


def mask_scores(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """What the softmax is taken of: the score where the mask is True.

    Args:
      scores: [..., T] float32.
      mask: bool, of the same rank.
    """
    return jnp.where(mask, scores, MASKED)


def self_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
    """Grouped-query attention: head n reads key-value head n // (N/K).

    The queries of one key-value head are laid side by side, so that every product is
    a plain batched matrix product; a five-dimensional einsum lowers to one several
    times slower on a CPU.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H]; T is S, or more where earlier columns are read too.
      v: [B, T, K, H].
      mask: [B, S, T] bool, True where attended.

    Returns:
      [B, S, N, H] in the type of q; scores and softmax in float32.
    """
    batch, size, heads, head_dim = q.shape
    columns, kv_heads = k.shape[1:3]
    group = heads // kv_heads  # R
    q = scale_queries(q).transpose(0, 2, 1, 3)  # [B, N, S, H]
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
    """Keys and values of T columns, however they lie in memory."""

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, T] float32."""
        ...

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, T] times the values: [B, K, R, H] float32."""
        ...


class Part(NamedTuple):
    """Some of the columns that a token reads.

    Attributes:
      columns: their keys and values.
      mask: [B or 1, T] bool, True where attended.
    """

    columns: CachedColumns
    mask: jax.Array


def cached_attention(q: jax.Array, parts: Sequence[Part]) -> jax.Array:
    """One softmax over several caches, for one token of each row.

    Args:
      q: [B, K, R, H]; R = N/K query heads read each key-value head.
      parts: what each row reads.

    Returns:
      [B, K, R, H] float32; scores and softmax in float32.
    """
    q = scale_queries(q)
    scores = [
        mask_scores(columns.scores(q), mask[:, None, None])  # [B, K, R, T]
        for columns, mask in parts
    ]
    tops = [jnp.max(part, axis=-1, keepdims=True) for part in scores]
    top = functools.reduce(jnp.maximum, tops)  # [B, K, R, 1]
    weights = [jnp.exp(part - top) for part in scores]
    sums = [jnp.sum(part, axis=-1, keepdims=True) for part in weights]
    total = functools.reduce(jnp.add, sums)  # [B, K, R, 1]
    contexts = [part.columns.context(x) for part, x in zip(parts, weights, strict=True)]
    return functools.reduce(jnp.add, contexts) / total  # [B, K, R, H]


def attention_mask(
    segment_ids: jax.Array, branch_ids: jax.Array | None = None
) -> jax.Array:
    """Which columns each column attends to.

    Args:
      segment_ids: [B, S] whole numbers; 0 is padding.
      branch_ids: [B, S] whole numbers, where a segment has branches: columns of
        branch 0 are seen by all of their segment, others by their branch only.

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


def within_window(mask: jax.Array, ages: jax.Array, window: int | None) -> jax.Array:
    """What is left of a mask inside a sliding window.

    Args:
      mask: [..., T] bool, what a token would see without one.
      ages: of the same rank, query position - key position.
      window: tokens that a token sees, itself among them; None for all.
    """
    return mask if window is None else mask & (ages < window)


def layer_masks(
    positions: jax.Array, causal: jax.Array, config: TransformerConfig, before: int = 0
) -> tuple[Masks, jax.Array]:
    """The masks of all layers for whole rows, each kind once.

    Args:
      positions: [B, S] position of each token in its own sequence.
      causal: [B, S, S] from `attention_mask`.
      config: says which layers have a sliding window.
      before: Tc columns in front that all rows read, at positions from 0 on.

    Returns:
      One mask [B, S, Tc + S] for each kind of layer, and the kind of each layer, [L].
    """
    windows = [config.window_of(layer) for layer in range(config.num_layers)]
    kinds = list(dict.fromkeys(windows))
    ages = positions[:, :, None] - positions[:, None, :]  # [B, S, S]
    earlier = positions[:, :, None] - jnp.arange(before)[None, None]  # [B, S, Tc]

    def mask_of(window: int | None) -> jax.Array:
        own = within_window(causal, ages, window)
        if not before:
            return own
        common = within_window(earlier >= 0, earlier, window)
        return jnp.concatenate([common, own], axis=2)

    masks = tuple(mask_of(window) for window in kinds)
    return masks, jnp.array([kinds.index(window) for window in windows])


def masks_by_layer(
    config: TransformerConfig, mask_of: Callable[[int | None], Mask]
) -> list[Mask]:
    """`mask_of(window)` for each of L layers, made once for each window."""
    windows = [config.window_of(layer) for layer in range(config.num_layers)]
    made = {window: mask_of(window) for window in windows}
    return [made[window] for window in windows]


def prompt_mask(
    lengths: jax.Array,
    columns: jax.Array,
    start: int,
    size: int,
    window: int | None,
) -> jax.Array:
    """The columns of a prompt that a response token sees while decoding.

    Args:
      lengths: [B] tokens of each row's prompt.
      columns: [B] or [1] how many response tokens came before the row's.
      start: position of the first of the columns.
      size: T, how many there are.
      window: sliding window, None for all.

    Returns:
      [B, T] bool.
    """
    positions = jnp.arange(start, start + size)[None]  # [1, T]
    ages = (lengths + columns)[:, None] - positions  # [B, T]
    return within_window(positions < lengths[:, None], ages, window)
