"""One token for each of S slots, each at a column of its own.

A sequence enters a slot when another has left it, so slots are at different columns of
their responses. Every step still writes one and the same column of the cache, `step`
modulo T: the columns are a ring, and what a slot may read is known from their age. Keys
are rotated before they are kept, so their order in memory does not matter. A slot needs
no clearing: what is older than its sequence is masked.

Neighbouring slots form lanes. The slots of a lane read the same prompt, whose keys and
values lie in memory once a lane; nothing is gathered while decoding. What all prompts
begin with lies in memory once.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import MASKED
from jaxrl_reason.models.cache import PrefixCache
from jaxrl_reason.models.decode import DecodeParams, through_layers
from jaxrl_reason.models.key_values import (
    KeyValues,
    block_sizes,
    rounded,
    stored,
    written,
)
from jaxrl_reason.models.transformer import Transformer


@flax.struct.dataclass
class SlotCache:
    """What S slots in N lanes read, one entry a layer.

    Attributes:
      common: L entries of one row, Tc columns that all prompts begin with; or none.
      prompts: L entries of N rows, Tp columns that follow them.
      responses: L entries of S rows, T columns, a ring.
      prompt_lengths: [N] tokens of each lane's whole prompt.
      step: scalar, how many columns were ever written.
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
    lanes: int,
    lane_width: int,
    sizes: tuple[int, int],
    dtype: str,
    block: int,
    common: PrefixCache | None = None,
) -> SlotCache:
    """A cache of zeros behind what all prompts begin with.

    Args:
      model: the transformer.
      lanes: N.
      lane_width: slots of a lane, so that S = N * lane_width.
      sizes: prompt columns Tp and response columns T, each rounded up to blocks.
      dtype: one of CACHE_DTYPES.
      block: columns of a block, and numbers of one where it divides H; 0 for one
        block of all.
      common: one row without padding, if prompts have a beginning in common.
    """
    c = model.config

    def zeros(rows: int, size: int) -> KeyValues:
        shape = (rows, c.num_kv_heads, rounded(size, block), c.head_dim)
        shapes = jax.eval_shape(
            lambda x: stored(x, x, dtype, block_sizes(shape, block)),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def kept_once() -> tuple[KeyValues, ...]:
        if common is None:
            return ()
        # One block: all slots multiply with it at once, so there is no copy to save.
        blocks = block_sizes(common.keys[0].shape, 0)
        pairs = zip(common.keys, common.values, strict=True)
        return tuple(stored(keys, values, dtype, blocks) for keys, values in pairs)

    return SlotCache(
        common=kept_once(),
        prompts=tuple(zeros(lanes, sizes[0]) for _ in range(c.num_layers)),
        responses=tuple(
            zeros(lanes * lane_width, sizes[1]) for _ in range(c.num_layers)
        ),
        prompt_lengths=jnp.ones(lanes, jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def slot_attention(
    q: jax.Array, parts: Sequence[tuple[KeyValues, jax.Array]]
) -> jax.Array:
    """One softmax over several caches, each of which slots share or have to themselves.

    Args:
      q: [S, K, R, H] float, scaled; R = N/K query heads read each key-value head.
      parts: caches of n rows, where S/n neighbouring slots read each row, and masks
        [S, T] of the columns that each slot sees.

    Returns:
      [S, K, R, H] float32; scores and softmax in float32.
    """
    q = q.astype(jnp.float32)
    scores = [
        jnp.where(
            mask[:, None, None], _by_slot(_scores(_by_row(q, kept), kept), q), MASKED
        )
        for kept, mask in parts
    ]
    tops = [jnp.max(part, axis=-1, keepdims=True) for part in scores]
    top = functools.reduce(jnp.maximum, tops)
    weights = [jnp.exp(part - top) for part in scores]
    total = sum(jnp.sum(part, axis=-1, keepdims=True) for part in weights)
    contexts = [
        _by_slot(_context(_by_row(part, kept), kept), q)
        for part, (kept, _) in zip(weights, parts, strict=True)
    ]
    return functools.reduce(jnp.add, contexts) / total


def _by_row(x: jax.Array, kept: KeyValues) -> jax.Array:
    """[S, K, R, m] -> [n, K, S/n*R, m]: the queries of a cache's row side by side."""
    slots, kv_heads, group, _ = x.shape
    rows = kept.values.shape[0]
    x = x.reshape(rows, slots // rows, kv_heads, group, -1).swapaxes(1, 2)
    return x.reshape(rows, kv_heads, slots // rows * group, -1)


def _by_slot(x: jax.Array, q: jax.Array) -> jax.Array:
    """Undo `_by_row`."""
    slots, kv_heads, group, _ = q.shape
    rows = x.shape[0]
    x = x.reshape(rows, kv_heads, slots // rows, group, -1).swapaxes(1, 2)
    return x.reshape(slots, kv_heads, group, -1)


def _scores(q: jax.Array, kept: KeyValues) -> jax.Array:
    """Scores [n, K, Q, T] of q [n, K, Q, H]."""
    n, kv_heads, blocks, head, _ = kept.keys.shape
    # A product a block: left to einsum, the blocks would be gathered into a copy.
    q = jnp.broadcast_to(q[:, :, None], (n, kv_heads, blocks, q.shape[2], head))
    scores = jnp.einsum("nkbqh,nkbht->nkbqt", q, kept.keys.astype(q.dtype))
    scores = _joined(scores)
    if kept.key_scales is not None:
        scores = scores * kept.key_scales[:, :, None]
    return scores


def _context(weights: jax.Array, kept: KeyValues) -> jax.Array:
    """Sums of values [n, K, Q, H] under weights [n, K, Q, T]."""
    if kept.value_scales is not None:
        weights = weights * kept.value_scales[:, :, None]
    n, kv_heads, blocks, size, _ = kept.values.shape
    shape = (n, kv_heads, blocks, weights.shape[2], size)
    weights = jnp.broadcast_to(weights[:, :, None], shape)
    values = kept.values.astype(weights.dtype)
    return _joined(jnp.einsum("nkbqt,nkbth->nkbqh", weights, values))


def _joined(x: jax.Array) -> jax.Array:
    """[n, K, blocks, Q, block] -> [n, K, Q, blocks*block]."""
    x = x.swapaxes(2, 3)
    return x.reshape(*x.shape[:3], -1)


def slot_step(
    model: Transformer,
    params: DecodeParams,
    tokens: jax.Array,
    columns: jax.Array,
    cache: SlotCache,
) -> tuple[jax.Array, SlotCache]:
    """Feed one token of every slot.

    Args:
      model: the transformer.
      params: its parameters, cut by `decode_params` for prompt length 0, so that
        `rope` [positions, 1, 1, H/2] holds every position there can be.
      tokens: [S] tokens.
      columns: [S] how many response tokens came before each.
      cache: what the slots read; the ring's next column is written.

    Returns:
      Hidden states [S, D] after the final norm, and the cache.
    """
    c = model.config
    slots, lanes = tokens.shape[0], cache.prompt_lengths.shape[0]
    positions = jnp.repeat(cache.prompt_lengths, slots // lanes) + columns
    cos, sin = (part[positions, 0] for part in params.rope)
    place = cache.step % cache.responses[0].size
    masks = {
        window: _slot_masks(cache, columns, place, window)
        for window in {c.window_of(layer) for layer in range(c.num_layers)}
    }
    dtype = str(cache.responses[0].values.dtype)

    def attend_at(layer: int) -> Any:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            q, k, v = (
                x.reshape(slots, c.num_kv_heads, -1, c.head_dim) for x in (q, k, v)
            )
            blocks = (1, cache.responses[layer].blocks[1])
            new = stored(k, v, dtype, blocks)
            kept = written(cache.responses[layer], new, 0, place)
            caches = [*cache.common[layer : layer + 1], cache.prompts[layer], kept]
            parts = list(zip(caches, masks[c.window_of(layer)], strict=True))
            context = slot_attention(q * c.head_dim**-0.5, parts).astype(q.dtype)
            return context.reshape(slots, 1, c.num_heads, -1), kept

        return attend

    hidden, kept = through_layers(model, params, tokens, (cos, sin), attend_at)
    return hidden, replace(cache, responses=tuple(kept), step=cache.step + 1)


def _slot_masks(
    cache: SlotCache, columns: jax.Array, place: jax.Array, window: int | None
) -> list[jax.Array]:
    """The columns that each slot sees, of each part: [S, Tc] if any, [S, Tp], [S, T].

    With a window, only the newest `window` tokens, the slot's own among them.
    """
    lengths = jnp.repeat(
        cache.prompt_lengths, columns.size // cache.prompt_lengths.size
    )[:, None]
    size = cache.responses[0].size
    ages = ((place - jnp.arange(size)) % size)[None]
    own = ages <= columns[:, None]
    if window is not None:
        own &= ages < window

    def before(start: int, size: int) -> jax.Array:
        """Of prompt tokens from `start` on."""
        positions = jnp.arange(start, start + size)[None]
        mask = positions < lengths
        if window is not None:
            mask &= lengths + columns[:, None] - positions < window
        return mask

    once = cache.common_size
    prompts = before(once, cache.prompts[0].size)
    return [before(0, once), prompts, own] if once else [prompts, own]
