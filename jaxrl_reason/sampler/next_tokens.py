"""From logits to one drawn token per row: keys, filters and an inverse CDF."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxrl_reason.sampler.settings import SamplingSettings

# Sampling from a large vocabulary has two stages, a block and then a token inside it,
# so that no cumulative sum runs over the whole vocabulary.
BLOCK = 256


def sampling_keys(
    seed: int, step: int | jax.Array, prompt_ids: jax.Array, num_samples: int
) -> jax.Array:
    """One key per response, independent of its position in the batch.

    Keys depend only on seed, step, prompt id and sample id. So a prompt gets the same
    responses in any batch, at any position and on any mesh; the same prompt id twice in
    one step gets the same responses twice.

    Args:
      seed: the run's seed.
      step: the rollout's number in the run.
      prompt_ids: [P] integers, one per prompt of the dataset.
      num_samples: G.

    Returns:
      [P*G] keys, prompts then samples.

    >>> sampling_keys(0, 3, jax.numpy.array([7, 5]), 4).shape
    (8,)
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    key = jax.random.fold_in(jax.random.key(seed), step)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    prompts = fold(key, jnp.asarray(prompt_ids))  # [P]
    keys = jax.vmap(fold, in_axes=(0, None))(prompts, jnp.arange(num_samples))  # [P, G]
    return keys.reshape(-1)


def next_tokens(
    logits: jax.Array,
    keys: jax.Array,
    column: jax.Array,
    settings: SamplingSettings,
    given: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row, and returns its log-prob.

    Args:
      logits: [B, V] float32 of the model.
      keys: [B], one per response.
      column: scalar or [B], the response columns the tokens are for.
      settings: temperature, filters, bias and bans.
      given: [B] tokens to take in place of drawn ones, where they are not negative.

    Returns:
      Tokens [B] int32, and their log-probs [B] float32 under the tempered,
      unfiltered distribution (greedy: temperature 1).
    """
    allowed = logits  # [B, V]
    if settings.logit_bias:
        biased, biases = zip(*settings.logit_bias, strict=True)
        allowed = allowed.at[:, jnp.array(biased)].add(jnp.array(biases)[None])
    if settings.banned_tokens:
        allowed = allowed.at[:, jnp.array(settings.banned_tokens)].set(-jnp.inf)
    if settings.temperature > 0:
        logits, allowed = logits / settings.temperature, allowed / settings.temperature
        columns = jnp.broadcast_to(column, keys.shape)  # [B]
        uniforms = jax.vmap(  # [B, 2]
            lambda key, at: jax.random.uniform(jax.random.fold_in(key, at), (2,))
        )(keys, columns)
        if settings.top_k or settings.top_p < 1 or settings.min_p:
            allowed = filter_logits(allowed, settings)
        tokens = draw(allowed, uniforms)  # [B]
    else:
        tokens = jnp.argmax(allowed, axis=-1).astype(jnp.int32)
    if given is not None:
        tokens = jnp.where(given >= 0, given, tokens)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]  # [B]
    # On a CPU, taking exponentials inside the sum is ten times slower than summing
    # those in memory, which the draw has already computed.
    total = jax.lax.platform_dependent(  # [B]
        logits, cpu=_log_total, default=partial(jax.nn.logsumexp, axis=-1)
    )
    return tokens, chosen - total


def filter_logits(logits: jax.Array, settings: SamplingSettings) -> jax.Array:
    """Sets the logits of tokens that may not be drawn to minus infinity.

    Tokens tied with the last one kept are kept too.

    Args:
      logits: [B, V] float32, already divided by the temperature.
      settings: its top_k, top_p and min_p apply, in this order.

    Returns:
      [B, V] float32.
    """
    if 0 < settings.top_k < logits.shape[-1]:
        smallest = jax.lax.top_k(logits, settings.top_k)[0][:, -1:]  # [B, 1]
        logits = _mask_below(logits, smallest)
    if settings.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)  # [B, V]
        mass = jnp.cumsum(jax.nn.softmax(ordered, axis=-1), axis=-1)  # [B, V]
        # Tokens up to and including the one that reaches the mass.
        count = jnp.sum(mass < settings.top_p, axis=-1, keepdims=True)
        count = jnp.minimum(count, logits.shape[-1] - 1)  # [B, 1]
        logits = _mask_below(logits, jnp.take_along_axis(ordered, count, axis=-1))
    if settings.min_p > 0:
        likeliest = jnp.max(logits, axis=-1, keepdims=True)  # [B, 1]
        logits = _mask_below(logits, likeliest + jnp.log(settings.min_p))
    return logits


def _mask_below(logits: jax.Array, smallest: jax.Array) -> jax.Array:
    return jnp.where(logits >= smallest, logits, -jnp.inf)


def inverse_cdf(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """The index i with sum(w[:i]) <= uniform * sum(w) < sum(w[:i+1]).

    Never an index of zero weight, despite rounding.

    Args:
      weights: [B, n] float32, >= 0, not all zero in a row.
      uniform: [B] float32 in [0, 1).

    Returns:
      [B] int32.
    """
    sums = jnp.cumsum(weights, axis=-1)  # [B, n]
    total = sums[:, -1:]  # [B, 1]
    index = jnp.sum(sums <= uniform[:, None] * total, axis=-1)  # [B]
    # uniform * total can round up to total: then take the last index that adds weight.
    return jnp.minimum(index, jnp.sum(sums < total, axis=-1)).astype(jnp.int32)


def draw(logits: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Draws one token per row with probability proportional to exp(logits).

    Args:
      logits: [B, V] float32; tokens with minus infinity are never drawn.
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


def _log_total(logits: jax.Array) -> jax.Array:
    """logsumexp of [B, V] over V in two steps; a row's largest number is finite."""
    top = jnp.max(logits, axis=-1)  # [B]
    weights = jax.lax.optimization_barrier(jnp.exp(logits - top[:, None]))
    return jnp.log(jnp.sum(weights, axis=-1)) + top
