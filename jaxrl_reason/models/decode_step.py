"""Decoding: prompts are prefilled once, then many responses get one token at a time.

The samples of a prompt share its keys and values.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import RopeTable, cached_attention, layer_windows
from jaxrl_reason.models.layers import HEADS, KV_HEADS, ROWS, Attend, Block, RMSNorm
from jaxrl_reason.models.params import DecodeParams, Params
from jaxrl_reason.models.transformer import Transformer
from jaxrl_reason.sharding import stationary

# Accumulates in float32 for every input type.
product = partial(jnp.einsum, preferred_element_type=jnp.float32)


@flax.struct.dataclass
class PrefixCache:
    """Keys and values of P prompts, one entry per layer.

    Attributes:
      keys: L arrays [P, K, Tp, H], already rotated.
      values: L arrays [P, K, Tp, H].
      lengths: [P] tokens of each row; columns from there on are padding.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    lengths: jax.Array


def prefill(
    model: Transformer,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    common: PrefixCache | None = None,
) -> tuple[jax.Array, PrefixCache]:
    """Prefills right-padded prompts.

    Args:
      model: the transformer.
      params: its parameters.
      tokens: [P, Tp] token ids, each prompt from column 0.
      lengths: [P] tokens of each prompt, from 1 to Tp.
      common: the cache of the tokens that all prompts begin with, one row without
        padding; `tokens`, `lengths` and the result are then of what follows.

    Returns:
      The hidden state [P, D] of each prompt's last token, and the cache.

    Raises:
      ValueError: the prompts are longer than the model's context_length.
    """
    before = 0 if common is None else common.keys[0].shape[2]
    size, limit = tokens.shape[1], model.config.context_length
    if before + size > limit:
        raise ValueError(
            f"prompts must fit the model's context_length ({limit}), "
            f"got rows of {before + size} tokens"
        )
    columns = jnp.broadcast_to(jnp.arange(size)[None], tokens.shape)  # [P, Tp]
    segments = (columns < lengths[:, None]).astype(jnp.int32)  # [P, Tp]
    # Padding may be any number, such as -100, which has no embedding.
    tokens = jnp.where(segments > 0, tokens, 0)
    past = None
    if common is not None:  # [L, Tc, K, H] of its one row
        past = tuple(
            jnp.stack([layer[0].swapaxes(0, 1) for layer in part])
            for part in (common.keys, common.values)
        )
    hidden, (keys, values) = model.apply(
        {"params": params},
        tokens,
        before + columns,
        segments,
        past=past,
        method="with_cache",
    )
    # [P, D]
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    # [L, P, Tp, K, H] -> L arrays [P, K, Tp, H]
    keys, values = (tuple(part.transpose(0, 1, 3, 2, 4)) for part in (keys, values))
    return last, PrefixCache(keys, values, lengths)


@flax.struct.dataclass
class ResponseCache:
    """Keys and values of the responses so far, one entry per layer.

    Every response starts at column 0, so all rows write the same column at each step,
    independent of the lengths of their prompts.

    Attributes:
      keys: L arrays [B, K, T, H], already rotated; B = P*G, prompts then samples.
      values: L arrays [B, K, T, H].
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


@flax.struct.dataclass
class PromptColumns:
    """A prompt's keys and values, read by all of its samples.

    Attributes:
      keys: [P, K, Tp, H].
      values: [P, K, Tp, H].
    """

    keys: jax.Array
    values: jax.Array

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, Tp] float32."""
        prompts, kv_heads, size, head = self.keys.shape
        rows, _, group, _ = q.shape
        # The queries of a prompt's samples next to each other: [P, K, G*R, H].
        q = q.reshape(prompts, -1, kv_heads, group, head).swapaxes(1, 2)
        q = q.reshape(prompts, kv_heads, -1, head)
        scores = product("pkqh,pkth->pkqt", q, self.keys)  # [P, K, G*R, Tp]
        scores = scores.reshape(prompts, kv_heads, -1, group, size).swapaxes(1, 2)
        return scores.reshape(rows, kv_heads, group, size)

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, Tp] times the values: [B, K, R, H] float32."""
        prompts, kv_heads, size, head = self.values.shape
        rows, _, group, _ = weights.shape
        weights = weights.astype(self.values.dtype)
        weights = weights.reshape(prompts, -1, kv_heads, group, size).swapaxes(1, 2)
        weights = weights.reshape(prompts, kv_heads, -1, size)  # [P, K, G*R, Tp]
        context = product("pkqt,pkth->pkqh", weights, self.values)  # [P, K, G*R, H]
        context = context.reshape(prompts, kv_heads, -1, group, head).swapaxes(1, 2)
        return context.reshape(rows, kv_heads, group, head)


@flax.struct.dataclass
class ResponseColumns:
    """Each row's own keys and values.

    Attributes:
      keys: [B, K, T, H].
      values: [B, K, T, H].
    """

    keys: jax.Array
    values: jax.Array

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, T] float32."""

        def one_by_one(q: jax.Array, keys: jax.Array) -> jax.Array:
            heads = (q[:, :, i] for i in range(q.shape[2]))
            return jnp.stack([product("bkh,bkth->bkt", x, keys) for x in heads], 2)

        # On a CPU, a product with a matrix of a few rows is up to five times slower
        # than products with the same rows as vectors. An accelerator would read the
        # keys once for each vector.
        return jax.lax.platform_dependent(
            q,
            self.keys,
            cpu=one_by_one,
            default=partial(product, "bkrh,bkth->bkrt"),
        )

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, T] times the values: [B, K, R, H] float32."""
        weights = weights.astype(self.values.dtype)
        return product("bkrt,bkth->bkrh", weights, self.values)


def decode_step(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    column: jax.Array,
    prefix: PrefixCache,
    cache: ResponseCache,
) -> tuple[jax.Array, ResponseCache]:
    """Feeds one token of every response.

    Args:
      model: the transformer.
      params: its parameters, from `decode_params`.
      tokens: [B] tokens of this column; B = P*G, prompts then samples.
      column: scalar, the number of response tokens before these.
      prefix: the prompts' cache.
      cache: the responses' cache; column `column` is written.

    Returns:
      Hidden states [B, D] after the final norm, and the cache.
    """
    c = model.config
    rows, prompts = tokens.shape[0], prefix.lengths.shape[0]
    samples = rows // prompts  # G
    # Cosines and sines of each row's position, each [B, 1, H/2].
    cos, sin = (jnp.repeat(x[column], samples, axis=0) for x in params.rope)
    # A row attends to its prompt and its own response, within the layer's window if it
    # has one.
    places, size = jnp.arange(prefix.keys[0].shape[2])[None], cache.keys[0].shape[2]
    lengths = prefix.lengths[:, None]  # [P, 1]
    windows, kinds = layer_windows(c)
    ages = lengths + column - places  # [P, Tp]
    shared = [(places < lengths) & (ages < window) for window in windows]
    shared = [jnp.repeat(mask, samples, axis=0) for mask in shared]  # [B, Tp]
    ages = column - jnp.arange(size)[None]  # [1, T]
    own = [(ages >= 0) & (ages < window) for window in windows]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, layer: int) -> Any:
        # [B, 1, N or K, H] -> [B, K, R or 1, H]
        q, k, v = (x.reshape(rows, k.shape[2], -1, c.head_dim) for x in (q, k, v))
        write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=column, axis=2)
        keys = write(cache.keys[layer], k)  # [B, K, T, H]
        values = write(cache.values[layer], v)
        prompt = PromptColumns(prefix.keys[layer], prefix.values[layer])
        masks = shared[kinds[layer]], own[kinds[layer]]
        context = cached_attention(q, (prompt, ResponseColumns(keys, values)), masks)
        context = context.astype(q.dtype)  # [B, K, R, H]
        return context.reshape(rows, 1, c.num_heads, -1), (keys, values)

    hidden, kept = through_layers(model, params, tokens, (cos, sin), attend)
    keys, values = zip(*kept, strict=True)
    return hidden, ResponseCache(keys, values)


def through_layers(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    rope: RopeTable,
    attend: Attend,
) -> tuple[jax.Array, list[Any]]:
    """One token per row [B] through all blocks; no parameter is sent anywhere.

    Args:
      model: the transformer.
      params: its parameters, from `decode_params`.
      tokens: [B].
      rope: cosines and sines of the tokens' positions, each [B, 1, H/2].
      attend: the attention function; it gets the layer.

    Returns:
      Hidden states [B, D] after the final norm, and what `attend` returned in each
      layer.
    """
    c, constrain, of_all = model.config, stationary(model.constrain), attend

    def of_own(q: jax.Array, k: jax.Array, v: jax.Array, layer: Any) -> Any:
        q = model.constrain(q, HEADS)
        k, v = (model.constrain(x, KV_HEADS) for x in (k, v))
        return of_all(q, k, v, layer)

    if constrain is not model.constrain:
        # A device computes its part of D for rows whose caches others hold.
        attend, tokens = of_own, constrain(tokens, ("batch",))
        cos, sin = (constrain(x, ("batch", None, None)) for x in rope)
        rope = (cos, sin)
    block = Block(c, constrain)
    x = jnp.take(params.embedding, tokens[:, None], axis=0)  # [B, 1, D]
    x = constrain(x, ROWS)
    kept = []
    for layer in range(c.num_layers):
        x, new = block.apply(params.layer(layer), x, rope, attend, layer)
        kept.append(new)
    norm = RMSNorm(c.norm_eps, c.param_dtype)
    return norm.apply({"params": params.final_norm}, x)[:, 0], kept
