"""One token for each of many responses, over a prompt cache that samples share."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import MASKED
from jaxrl_reason.models.cache import PrefixCache
from jaxrl_reason.models.layers import Block, RMSNorm
from jaxrl_reason.models.params import Params
from jaxrl_reason.models.rope import rope_table
from jaxrl_reason.models.transformer import Transformer, embed


@flax.struct.dataclass
class ResponseCache:
    """Keys and values of the responses so far, one entry a layer.

    Every response starts at column 0, so all rows write the same column at each step,
    whatever the lengths of their prompts.

    Args:
        keys: L arrays [P, K, G, T, H], already rotated.
        values: L arrays [P, K, G, T, H].
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


@flax.struct.dataclass
class DecodeParams:
    """Parameters cut into layers once, since cutting inside a loop copies them.

    Args:
        layers: L trees of one block's parameters.
        embedding: [V, D].
        final_norm: the last norm's parameters.
    """

    layers: tuple[Params, ...]
    embedding: jax.Array
    final_norm: Params


def decode_params(model: Transformer, params: Params) -> DecodeParams:
    """Cut a model's parameters for `decode_step`, in the compute type."""
    dtype = jnp.dtype(model.config.dtype)
    cast = jax.tree.map(lambda x: x.astype(dtype), params["layers"])
    layers = tuple(
        jax.tree.map(lambda x, i=i: x[i], cast) for i in range(model.config.num_layers)
    )
    return DecodeParams(layers, params["embedding"], params["final_norm"])


def empty_cache(
    model: Transformer, prompts: int, samples: int, size: int
) -> ResponseCache:
    """A cache of zeros for P prompts, G samples and T tokens."""
    c = model.config
    shape = (prompts, c.num_kv_heads, samples, size, c.head_dim)
    keys, values = (
        tuple(jnp.zeros(shape, jnp.dtype(c.dtype)) for _ in range(c.num_layers))
        for _ in range(2)
    )
    return ResponseCache(keys, values)


def grow_cache(cache: ResponseCache, size: int) -> ResponseCache:
    """The same cache with room for `size` tokens."""

    def grow(x: jax.Array) -> jax.Array:
        return jnp.pad(x, ((0, 0),) * 3 + ((0, size - x.shape[3]), (0, 0)))

    return jax.tree.map(grow, cache)


def decode_attention(
    q: jax.Array,
    prefix: tuple[jax.Array, jax.Array, jax.Array],
    response: tuple[jax.Array, jax.Array, jax.Array],
) -> jax.Array:
    """One softmax over two parts: the shared prompt and the row's own response.

    Args:
        q: [P, K, G, R, H], scaled; R query heads read each key-value head.
        prefix: keys [P, K, Tp, H], values, and the mask [P, Tp] of real columns.
        response: keys [P, K, G, T, H], values, and the mask [T] of written columns.

    Returns:
        [P, K, G, R, H] in the type of q; scores and softmax in float32.
    """
    prompts, kv_heads, samples, group, head_dim = q.shape
    shared_keys, shared_values, shared_mask = prefix
    keys, values, mask = response
    wide = jnp.float32
    # All samples of a prompt side by side: the prompt's keys are read once for them.
    flat = q.reshape(prompts, kv_heads, samples * group, head_dim)
    shared = jnp.einsum(
        "pkqh,pkth->pkqt", flat, shared_keys, preferred_element_type=wide
    )
    shared = jnp.where(shared_mask[:, None, None], shared, MASKED)
    shared = shared.reshape(prompts, kv_heads, samples, group, -1)
    own = jnp.einsum("pkgrh,pkgth->pkgrt", q, keys, preferred_element_type=wide)
    own = jnp.where(mask[None, None, None, None], own, MASKED)
    top = jnp.maximum(
        jnp.max(shared, axis=-1, keepdims=True), jnp.max(own, axis=-1, keepdims=True)
    )
    shared, own = jnp.exp(shared - top), jnp.exp(own - top)
    total = jnp.sum(shared, -1, keepdims=True) + jnp.sum(own, -1, keepdims=True)
    flat = shared.reshape(prompts, kv_heads, samples * group, -1).astype(q.dtype)
    context = jnp.einsum(
        "pkqt,pkth->pkqh", flat, shared_values, preferred_element_type=wide
    ).reshape(q.shape)
    context += jnp.einsum(
        "pkgrt,pkgth->pkgrh", own.astype(q.dtype), values, preferred_element_type=wide
    )
    return (context / total).astype(q.dtype)


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
        params: its parameters, cut by `decode_params`.
        tokens: [B] the tokens of this column; B = P*G, prompts then samples.
        column: scalar, how many response tokens came before these.
        prefix: the prompts' cache.
        cache: the responses' cache; its column `column` is written.

    Returns:
        Hidden states [B, D] after the final norm, and the cache.
    """
    c = model.config
    prompts, samples = prefix.lengths.shape[0], cache.keys[0].shape[2]
    positions = jnp.repeat(prefix.lengths + column, samples)[:, None]
    rope = rope_table(positions, c.head_dim, c.rope_base)
    shared_mask = jnp.arange(prefix.keys[0].shape[2])[None] < prefix.lengths[:, None]
    mask = jnp.arange(cache.keys[0].shape[3]) <= column
    block = Block(c, model.constrain)
    grid = (prompts, samples, c.num_kv_heads, -1, c.head_dim)

    def attend_at(layer: int) -> Any:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            q, k, v = (x.reshape(grid).transpose(0, 2, 1, 3, 4) for x in (q, k, v))
            keys = _write(cache.keys[layer], k, column)
            values = _write(cache.values[layer], v, column)
            context = decode_attention(
                q * c.head_dim**-0.5,
                (prefix.keys[layer], prefix.values[layer], shared_mask),
                (keys, values, mask),
            )
            context = context.transpose(0, 2, 1, 3, 4)
            return context.reshape(tokens.shape[0], 1, c.num_heads, -1), (keys, values)

        return attend

    x = embed(params.embedding, tokens[:, None], c)
    kept = []
    for layer in range(c.num_layers):
        x, new = block.apply(
            {"params": params.layers[layer]},
            x,
            rope,
            attend_at(layer),
            method="apply_with",
        )
        kept.append(new)
    keys, values = zip(*kept, strict=True)
    return _final_norm(model, params, x)[:, 0], ResponseCache(keys, values)


def _write(cache: jax.Array, new: jax.Array, column: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(cache, new, column, axis=3)


def _final_norm(model: Transformer, params: DecodeParams, x: jax.Array) -> jax.Array:
    norm = RMSNorm(model.config.norm_eps, model.config.param_dtype)
    return norm.apply({"params": params.final_norm}, x)
