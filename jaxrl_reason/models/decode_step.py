"""One token for each of many responses, over a prompt cache that samples share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import (
    Part,
    cached_attention,
    masks_by_layer,
    prompt_mask,
    within_window,
)
from jaxrl_reason.models.decode_params import DecodeParams
from jaxrl_reason.models.layers import Attend, Block, RMSNorm
from jaxrl_reason.models.prefix_cache import PrefixCache
from jaxrl_reason.models.rope import RopeTable
from jaxrl_reason.models.transformer import Transformer, embed


@flax.struct.dataclass
class ResponseCache:
    """Keys and values of the responses so far, one entry per layer.

    Every response starts at column 0, so all rows write the same column at each step,
    whatever the lengths of their prompts.

    Attributes:
      keys: L arrays [B, K, T, H], already rotated; B = P*G, prompts then samples.
      values: L arrays [B, K, T, H].
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


def empty_cache(model: Transformer, rows: int, size: int) -> ResponseCache:
    """A cache of zeros for B rows of T tokens."""
    c = model.config
    shape = (rows, c.num_kv_heads, size, c.head_dim)  # [B, K, T, H]
    keys, values = (
        tuple(jnp.zeros(shape, jnp.dtype(c.dtype)) for _ in range(c.num_layers))
        for _ in range(2)
    )
    return ResponseCache(keys, values)


def grow_cache(cache: ResponseCache, size: int) -> ResponseCache:
    """The same cache with room for `size` tokens."""

    def grow(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0), (0, 0), (0, size - x.shape[2]), (0, 0)))

    return jax.tree.map(grow, cache)


@flax.struct.dataclass
class PromptColumns:
    """A prompt's keys and values, which all samples of it read.

    Attributes:
      keys: [P, K, Tp, H].
      values: [P, K, Tp, H].
    """

    keys: jax.Array
    values: jax.Array

    def scores(self, q: jax.Array) -> jax.Array:
        """q [B, K, R, H] times the keys: [B, K, R, Tp] float32."""
        scores = _product("pkqh,pkth->pkqt", self._by_prompt(q), self.keys)
        return self._by_row(scores, q.shape[2])

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, Tp] times the values: [B, K, R, H] float32."""
        shared = self._by_prompt(weights.astype(self.values.dtype))
        context = _product("pkqt,pkth->pkqh", shared, self.values)
        return self._by_row(context, weights.shape[2])

    def _by_prompt(self, x: jax.Array) -> jax.Array:
        """[B, K, R, n] -> [P, K, G*R, n]: the samples of a prompt side by side."""
        prompts, rows = self.keys.shape[0], x.shape[0]
        x = x.reshape(prompts, rows // prompts, *x.shape[1:])  # [P, G, K, R, n]
        x = x.swapaxes(1, 2)  # [P, K, G, R, n]
        return x.reshape(prompts, x.shape[1], -1, x.shape[-1])

    def _by_row(self, x: jax.Array, group: int) -> jax.Array:
        """[P, K, G*R, n] -> [B, K, R, n], R being `group`."""
        prompts, kv_heads = x.shape[:2]
        x = x.reshape(prompts, kv_heads, -1, group, x.shape[-1])  # [P, K, G, R, n]
        x = x.swapaxes(1, 2)  # [P, G, K, R, n]
        return x.reshape(-1, kv_heads, group, x.shape[-1])


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
        return _own_scores(q, self.keys)

    def context(self, weights: jax.Array) -> jax.Array:
        """Weights [B, K, R, T] times the values: [B, K, R, H] float32."""
        weights = weights.astype(self.values.dtype)
        return _product("bkrt,bkth->bkrh", weights, self.values)


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _own_scores(q: jax.Array, keys: jax.Array) -> jax.Array:
    """Scores [B, K, R, T] of q [B, K, R, H] and keys [B, K, T, H]."""

    def together(q: jax.Array, keys: jax.Array) -> jax.Array:
        return _product("bkrh,bkth->bkrt", q, keys)

    def one_by_one(q: jax.Array, keys: jax.Array) -> jax.Array:
        heads = (q[:, :, i] for i in range(q.shape[2]))
        return jnp.stack([_product("bkh,bkth->bkt", x, keys) for x in heads], axis=2)

    # A CPU multiplies a matrix of a few rows up to five times slower than it does the
    # same rows as vectors. An accelerator would read the keys once for each.
    return jax.lax.platform_dependent(q, keys, cpu=one_by_one, default=together)


def decode_step(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    column: jax.Array,
    prefix: PrefixCache,
    cache: ResponseCache,
) -> tuple[jax.Array, ResponseCache]:
    """Feed one token of every response.

    Args:
      model: the transformer.
      params: its parameters, from `decode_params`.
      tokens: [B] the tokens of this column; B = P*G, prompts then samples.
      column: scalar, how many response tokens came before these.
      prefix: the prompts' cache.
      cache: the responses' cache; its column `column` is written.

    Returns:
      Hidden states [B, D] after the final norm, and the cache.
    """
    c = model.config
    rows = tokens.shape[0]
    samples = rows // prefix.lengths.shape[0]  # G
    # Of each row's position: cosines and sines, each [B, 1, H/2].
    cos, sin = (jnp.repeat(x[column], samples, axis=0) for x in params.rope)
    masks = masks_by_layer(c, partial(_masks, prefix, cache, column, samples))

    def attend_at(layer: int) -> Attend:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            # [B, 1, N or K, H] -> [B, K, R or 1, H]
            q, k, v = (
                x.reshape(rows, c.num_kv_heads, -1, c.head_dim) for x in (q, k, v)
            )
            keys = _write(cache.keys[layer], k, column)  # [B, K, T, H]
            values = _write(cache.values[layer], v, column)
            prompt = PromptColumns(prefix.keys[layer], prefix.values[layer])
            of_prompt, own = masks[layer]  # [B, Tp], [1, T]
            parts = [Part(prompt, of_prompt), Part(ResponseColumns(keys, values), own)]
            context = cached_attention(q, parts).astype(q.dtype)  # [B, K, R, H]
            return context.reshape(rows, 1, c.num_heads, -1), (keys, values)

        return attend

    hidden, kept = through_layers(model, params, tokens, (cos, sin), attend_at)
    keys, values = zip(*kept, strict=True)
    return hidden, ResponseCache(keys, values)


def through_layers(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    rope: RopeTable,
    attend_at: Callable[[int], Attend],
) -> tuple[jax.Array, list[Any]]:
    """One token per row [B] through all blocks.

    Args:
      model: the transformer.
      params: its parameters, from `decode_params`.
      tokens: [B].
      rope: cosines and sines of the tokens' positions, each [B, 1, H/2].
      attend_at: what attends in a layer.

    Returns:
      Hidden states [B, D] after the final norm, and what each layer hands back.
    """
    block = Block(model.config, model.constrain)
    x = embed(params.embedding, tokens[:, None], model.config)  # [B, 1, D]
    kept = []
    for layer in range(model.config.num_layers):
        x, new = block.apply(
            {"params": params.layers[layer]},
            x,
            rope,
            attend_at(layer),
            method="apply_with",
        )
        kept.append(new)
    return _final_norm(model, params, x)[:, 0], kept


def _masks(
    prefix: PrefixCache,
    cache: ResponseCache,
    column: jax.Array,
    samples: int,
    window: int | None,
) -> tuple[jax.Array, jax.Array]:
    """What response column `column` sees: of prompts [B, Tp], of its own row [1, T]."""
    columns, size = column[None], prefix.keys[0].shape[2]
    prompts = prompt_mask(prefix.lengths, columns, 0, size, window)  # [P, Tp]
    ages = column - jnp.arange(cache.keys[0].shape[2])[None]  # [1, T]
    own = within_window(ages >= 0, ages, window)
    return jnp.repeat(prompts, samples, axis=0), own


def _write(cache: jax.Array, new: jax.Array, column: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(cache, new, column, axis=2)


def _final_norm(model: Transformer, params: DecodeParams, x: jax.Array) -> jax.Array:
    norm = RMSNorm(model.config.norm_eps, model.config.param_dtype)
    return norm.apply({"params": params.final_norm}, x)
