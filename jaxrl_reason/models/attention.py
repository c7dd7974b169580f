"""Attention of whole rows: causal, inside segments, with grouped heads."""

import jax
import jax.numpy as jnp

# Finite, so that a row with nothing to attend to (padding) gives a plain average and
# finite gradients instead of nan.
MASKED = -1e30


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
    mask = (queries == keys) & (queries != 0) & causal
    if branch_ids is None:
        return mask
    queries, keys = branch_ids[:, :, None], branch_ids[:, None, :]
    return mask & ((keys == 0) | (queries == keys))


def window_mask(positions: jax.Array, window: int) -> jax.Array:
    """Which columns lie inside each column's sliding window.

    Args:
      positions: [B, S] position of each token in its own sequence.
      window: tokens that a token sees, itself among them.

    Returns:
      [B, S, S] bool: query position - key position < window. Neither causal nor kept
      to a segment; `attention_mask` is.
    """
    return positions[:, :, None] - positions[:, None, :] < window


def self_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array
) -> jax.Array:
    """Grouped-query attention: head n reads key-value head n // (N/K).

    The queries of one key-value head are laid side by side, so that every product is
    a plain batched matrix product; a five-dimensional einsum lowers to one several
    times slower on a CPU.

    Args:
      q: [B, S, N, H].
      k: [B, T, K, H]; T is S, or more where earlier columns are kept.
      v: [B, T, K, H].
      mask: [B, S, T] bool, True where attended.

    Returns:
      [B, S, N, H] in the type of q; scores and softmax in float32.
    """
    batch, size, heads, head_dim = q.shape
    columns, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    q = (q * head_dim**-0.5).transpose(0, 2, 1, 3)
    q = q.reshape(batch, kv_heads, group * size, head_dim)
    scores = jnp.einsum("bkqh,bskh->bkqs", q, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(batch, heads, size, columns)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, MASKED), axis=-1)
    weights = weights.astype(v.dtype).reshape(batch, kv_heads, group * size, columns)
    context = jnp.einsum("bkqs,bskh->bkqh", weights, v)
    return context.reshape(batch, heads, size, head_dim).transpose(0, 2, 1, 3)
