"""Decodes one token for each of S slots, each at its own column.

A sequence enters a slot when another has left it, so slots are at different columns of
their responses. Every step still writes a single column of the cache, `step` modulo T:
the columns are a ring buffer, and a column's age tells whether a slot may read it. Keys
are rotated before they are stored, so their order in memory does not matter. A slot
needs no clearing: what is older than its sequence is masked.

Neighbouring slots form prompt groups. The slots of a group read the same prompt, whose
keys and values are in memory once per group; nothing is gathered while decoding. The
common prefix of all prompts is in memory once.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import cached_attention, layer_windows
from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.decode_step import PrefixCache, through_layers
from jaxrl_reason.models.key_values import (
    KeyValues,
    block_sizes,
    quantize,
    round_up,
    update_slice,
)
from jaxrl_reason.models.params import DecodeParams
from jaxrl_reason.models.transformer import Transformer
from jaxrl_reason.sharding import Constrain, parts_of


@flax.struct.dataclass
class SlotCache:
    """The cache of S slots in N prompt groups, one entry per layer.

    Attributes:
      common: L entries of one row, Tc columns that all prompts begin with; or none.
      prompts: L entries of N rows, Tp columns that follow them.
      responses: L entries of S rows, T columns, a ring buffer.
      prompt_lengths: [N] tokens of each group's whole prompt.
      step: scalar, the number of columns written so far.
    """

    common: tuple[KeyValues, ...]
    prompts: tuple[KeyValues, ...]
    responses: tuple[KeyValues, ...]
    prompt_lengths: jax.Array
    step: jax.Array

    @property
    def common_size(self) -> int:
        """Tc."""
        return self.common[0].size if self.common else 0


def empty_slots(
    model: Transformer,
    groups: int,
    slots_per_group: int,
    sizes: tuple[int, int],
    dtype: str,
    block: int,
    common: PrefixCache | None = None,
) -> SlotCache:
    """A cache of zeros after the common prefix of all prompts.

    Args:
      model: the transformer.
      groups: N.
      slots_per_group: S / N.
      sizes: prompt columns Tp and response columns T, each rounded up to blocks.
      dtype: one of CACHE_DTYPES.
      block: columns per block, and dimensions per block if it divides H; 0 for a single
        block.
      common: the cache of the common prefix, one row without padding, if there is one.
    """
    c = model.config

    def zeros(rows: int, size: int) -> KeyValues:
        # [n, K, T, H]; K as attention repeats them for a mesh.
        kv_heads = math.lcm(c.num_kv_heads, parts_of(model.constrain, "kv_heads"))
        shape = (rows, kv_heads, round_up(size, block), c.head_dim)
        shapes = jax.eval_shape(
            lambda x: quantize(x, x, dtype, block_sizes(shape, block)),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def common_columns() -> tuple[KeyValues, ...]:
        if common is None:
            return ()
        # A single block: all slots multiply with it at once, so there is no copy to
        # avoid.
        blocks = block_sizes(common.keys[0].shape, 0)
        pairs = zip(common.keys, common.values, strict=True)
        return tuple(quantize(keys, values, dtype, blocks) for keys, values in pairs)

    return SlotCache(
        common=common_columns(),
        prompts=tuple(zeros(groups, sizes[0]) for _ in range(c.num_layers)),
        responses=tuple(
            zeros(groups * slots_per_group, sizes[1]) for _ in range(c.num_layers)
        ),
        prompt_lengths=jnp.ones(groups, jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def split_slots(constrain: Constrain, cache: SlotCache) -> SlotCache:
    """The cache split over a mesh: prompts by group, responses by slot, both by head.

    The common prefix, which every slot reads, is split by head only.
    """

    def split(x: jax.Array, rows: str | None = "batch") -> jax.Array:
        rows = rows and rows_axis(constrain, x.shape[0])
        heads = ("kv_heads", *(None,) * (x.ndim - 2)) if x.ndim > 1 else ()
        return constrain(x, (rows, *heads))

    by_group = (cache.prompts, cache.responses, cache.prompt_lengths)
    prompts, responses, lengths = jax.tree.map(split, by_group)
    return SlotCache(
        common=jax.tree.map(partial(split, rows=None), cache.common),
        prompts=prompts,
        responses=responses,
        prompt_lengths=lengths,
        step=constrain(cache.step, ()),
    )


def rows_axis(constrain: Constrain, rows: int) -> str | None:
    """The logical axis of rows; None if the mesh does not divide them."""
    return None if rows % parts_of(constrain, "batch") else "batch"


def slot_step(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    columns: jax.Array,
    cache: SlotCache,
) -> tuple[jax.Array, SlotCache]:
    """Feeds one token of every slot.

    Args:
      model: the transformer.
      params: its parameters, from `decode_params` for prompt length 0, so that
        `rope` [positions, 1, 1, H/2] holds every possible position.
      tokens: [S] tokens.
      columns: [S] the number of response tokens before each.
      cache: of the slots; the ring buffer's next column is written.

    Returns:
      Hidden states [S, D] after the final norm, and the cache.
    """
    c = model.config
    slots, groups = tokens.shape[0], cache.prompt_lengths.shape[0]
    lengths = jnp.repeat(cache.prompt_lengths, slots // groups)  # [S]
    # Cosines and sines of each slot's position, each [S, 1, H/2].
    cos, sin = (x[lengths + columns, 0] for x in params.rope)
    # scalar: the column that this step writes
    place = cache.step % cache.responses[0].size
    masks, kinds = _masks(c, cache, lengths, columns, place)
    dtype = str(cache.responses[0].values.dtype)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, layer: int) -> Any:
        # [S, 1, N or K, H] -> [S, K, R or 1, H]
        q, k, v = (x.reshape(slots, k.shape[2], -1, c.head_dim) for x in (q, k, v))
        blocks = (1, cache.responses[layer].blocks[1])
        own = update_slice(
            cache.responses[layer], quantize(k, v, dtype, blocks), 0, place
        )
        caches = [*cache.common[layer : layer + 1], cache.prompts[layer], own]
        context = cached_attention(q, caches, masks[kinds[layer]])
        context = context.astype(q.dtype)  # [S, K, R, H]
        return context.reshape(slots, 1, c.num_heads, -1), own

    hidden, responses = through_layers(model, params, tokens, (cos, sin), attend)
    return hidden, replace(cache, responses=tuple(responses), step=cache.step + 1)


def _masks(
    config: TransformerConfig,
    cache: SlotCache,
    lengths: jax.Array,
    columns: jax.Array,
    place: jax.Array,
) -> tuple[list[tuple[jax.Array, ...]], list[int]]:
    """What each slot attends to in each part: [S, Tc] if it exists, [S, Tp], [S, T].

    One per kind of layer, and the kind of each layer.
    """
    size, common = cache.responses[0].size, cache.common_size
    positions = jnp.arange(common + cache.prompts[0].size)[None]  # [1, Tc + Tp]
    ages = (lengths + columns)[:, None] - positions  # [S, Tc + Tp]
    windows, kinds = layer_windows(config)
    prompts = [(positions < lengths[:, None]) & (ages < window) for window in windows]
    ages = ((place - jnp.arange(size)) % size)[None]  # [1, T]
    # Older columns belong to the slot's previous sequence.
    own = [(ages <= columns[:, None]) & (ages < window) for window in windows]  # [S, T]
    parts = [
        (prompt[:, :common], prompt[:, common:], response)
        for prompt, response in zip(prompts, own, strict=True)
    ]
    return [part if common else part[1:] for part in parts], kinds
