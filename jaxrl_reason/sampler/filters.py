"""From logits to one drawn token per row: filters, and drawing by inverse CDF."""

import jax
import jax.numpy as jnp

from jaxrl_reason.sampler.settings import SamplingSettings

# Large vocabularies are drawn from in two stages, a block and then a token inside it,
# so that no cumulative sum runs over the whole vocabulary.
BLOCK = 256


def filter_logits(logits: jax.Array, settings: SamplingSettings) -> jax.Array:
    """Set the logits of tokens that may not be drawn to minus infinity.

    Tokens tied with the last one kept are kept too. A filter that is off adds nothing
    to the program.

    Args:
      logits: [B, V] float32, already divided by the temperature.
      settings: whose top_k, top_p and min_p apply, in this order.

    Returns:
      [B, V] float32.
    """
    if 0 < settings.top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, settings.top_k)[0][:, -1:]  # [B, 1]
        logits = _mask_below(logits, smallest)
    if settings.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)  # [B, V]
        mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)  # [B, V]
        # Tokens before the mass is reached, and the one that reaches it.
        count = jnp.sum(mass < settings.top_p, axis=-1, keepdims=True)
        count = jnp.minimum(count, logits.shape[-1] - 1)  # [B, 1]
        logits = _mask_below(logits, jnp.take_along_axis(ordered, count, axis=-1))
    if settings.min_p > 0:
        likeliest = jnp.max(logits, axis=-1, keepdims=True)  # [B, 1]
        logits = _mask_below(logits, likeliest + jnp.log(settings.min_p))
    return logits


def bias_logits(logits: jax.Array, settings: SamplingSettings) -> jax.Array:
    """Add the settings' bias to logits [B, V], and rule out the banned tokens."""
    if settings.logit_bias:
        tokens, biases = zip(*settings.logit_bias, strict=True)
        logits = logits.at[:, jnp.array(tokens)].add(jnp.array(biases)[None])
    if settings.banned_tokens:
        logits = logits.at[:, jnp.array(settings.banned_tokens)].set(-jnp.inf)
    return logits


def _mask_below(logits: jax.Array, smallest: jax.Array) -> jax.Array:
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def inverse_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """The index i with sum(w[:i]) <= uniform * sum(w) < sum(w[:i+1]).

    Never an index of zero weight, whatever the rounding.

    Args:
      weights: [B, n] float32, >= 0, not all zero in a row.
      uniform: [B] float32 in [0, 1).

    Returns:
      [B] int32.
    """
    sums = jnp.cumsum(weights, axis=-1)  # [B, n]
    total = sums[:, -1:]  # [B, 1]
    index = jnp.sum(sums <= uniform[:, None] * total, axis=-1)  # [B]
    # uniform * total can round up to total: then the last index that adds weight.
    return jnp.minimum(index, jnp.sum(sums < total, axis=-1)).astype(jnp.int32)


def draw(logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Draw one token per row with probability proportional to exp(logits).

    Args:
      logits: [B, V] float32; minus infinity never comes out.
      uniforms: [B, 2] float32 in [0, 1): one for the block, one inside it.

    Returns:
      [B] int32 tokens.
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))  # [B, V]
    if size <= 2 * BLOCK:
        return inverse_cdf(weights, uniforms[:, 1])
    blocks = -(-size // BLOCK)
    weights = jnp.pad(weights, ((0, 0), (0, blocks * BLOCK - size)))
    weights = weights.reshape(rows, blocks, BLOCK)  # [B, V/256, 256]
    block = inverse_cdf(jnp.sum(weights, axis=-1), uniforms[:, 0])  # [B]
    # [B, 256]
    inside = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    return block * BLOCK + inverse_cdf(inside, uniforms[:, 1])
