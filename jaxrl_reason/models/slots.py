"""One token for each of S slots, each at a column of its own.

A sequence enters a slot when another has left it, so slots are at different columns of
their responses. Every step still writes one and the same column of the cache, `step`
modulo T: the columns are a ring, and what a slot may read is known from their age. Keys
are rotated before they are kept, so their order in memory does not matter. A slot needs
no clearing: what is older than its sequence is masked.

Neighbouring slots form lanes. The slots of a lane read the same prompt, whose keys and
values lie in memory once a lane; nothing is gathered while decoding.
"""

from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import MASKED
from jaxrl_reason.models.decode import DecodeParams, through_layers
from jaxrl_reason.models.transformer import Transformer

CACHE_DTYPES = ("float32", "bfloat16", "int8")
# From this many rows on a CPU's matrix product beats sums of products.
PRODUCT_ROWS = 6


@flax.struct.dataclass
class KeyValues:
    """Keys and values of n rows in one layer.

    Args:
        keys: [n, K, H, T], already rotated; the columns last, so that a CPU's vectors
            run along them.
        values: [n, K, T, H].
        key_scales: [n, K, T] float32 to multiply int8 keys by, else None.
        value_scales: the same of the values.
    """

    keys: jax.Array
    values: jax.Array
    key_scales: jax.Array | None
    value_scales: jax.Array | None


@flax.struct.dataclass
class SlotCache:
    """What S slots in N lanes read, one entry a layer.

    Args:
        prompts: L entries of N rows, Tp columns.
        responses: L entries of S rows, T columns, a ring.
        prompt_lengths: [N] tokens of each lane's prompt.
        step: scalar, how many columns were ever written.
    """

    prompts: tuple[KeyValues, ...]
    responses: tuple[KeyValues, ...]
    prompt_lengths: jax.Array
    step: jax.Array


def empty_slots(
    model: Transformer, lanes: int, lane_width: int, sizes: tuple[int, int], dtype: str
) -> SlotCache:
    """A cache of zeros.

    Args:
        model: the transformer.
        lanes: N.
        lane_width: slots of a lane, so that S = N * lane_width.
        sizes: prompt columns Tp and response columns T.
        dtype: one of CACHE_DTYPES.
    """
    c = model.config

    def zeros(rows: int, size: int) -> KeyValues:
        shape = (rows, c.num_kv_heads, size, c.head_dim)
        shapes = jax.eval_shape(
            lambda x: stored(x, x, dtype), jax.ShapeDtypeStruct(shape, jnp.float32)
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return SlotCache(
        prompts=tuple(zeros(lanes, sizes[0]) for _ in range(c.num_layers)),
        responses=tuple(
            zeros(lanes * lane_width, sizes[1]) for _ in range(c.num_layers)
        ),
        prompt_lengths=jnp.ones(lanes, jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def stored(keys: jax.Array, values: jax.Array, dtype: str) -> KeyValues:
    """Keys and values [n, K, T, H] as they are kept.

    int8 has one scale a row, head and column: the largest magnitude of the H numbers
    over 127.
    """
    if dtype != "int8":
        keys, values = keys.astype(dtype), values.astype(dtype)
        return KeyValues(keys.swapaxes(2, 3), values, None, None)
    keys, key_scales = _rounded(keys)
    values, value_scales = _rounded(values)
    return KeyValues(keys.swapaxes(2, 3), values, key_scales, value_scales)


def _rounded(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    wide = x.astype(jnp.float32)
    scales = jnp.max(jnp.abs(wide), axis=-1) / 127
    whole = jnp.round(wide / jnp.where(scales > 0, scales, 1.0)[..., None])
    return whole.astype(jnp.int8), scales


def written(kept: KeyValues, new: KeyValues, row: Any, column: Any) -> KeyValues:
    """`kept` with `new` laid over it from a row and a column on."""

    def put(x: Any, y: Any, at: tuple[Any, ...]) -> Any:
        return None if x is None else jax.lax.dynamic_update_slice(x, y, at)

    return KeyValues(
        put(kept.keys, new.keys, (row, 0, 0, column)),
        put(kept.values, new.values, (row, 0, column, 0)),
        put(kept.key_scales, new.key_scales, (row, 0, column)),
        put(kept.value_scales, new.value_scales, (row, 0, column)),
    )


def turned(kept: KeyValues, step: jax.Array, size: int) -> KeyValues:
    """A ring of more columns: the oldest first, and room behind the newest.

    The step that goes with it is the old ring's size.
    """

    def turn(x: jax.Array | None, axis: int) -> Any:
        if x is None:
            return None
        x = jnp.roll(x, -step % x.shape[axis], axis)
        room = [(0, 0)] * x.ndim
        room[axis] = (0, size - x.shape[axis])
        return jnp.pad(x, room)

    return KeyValues(
        turn(kept.keys, 3),
        turn(kept.values, 2),
        turn(kept.key_scales, 2),
        turn(kept.value_scales, 2),
    )


def slot_attention(
    q: jax.Array,
    prompts: tuple[KeyValues, jax.Array],
    responses: tuple[KeyValues, jax.Array],
) -> jax.Array:
    """One softmax over a lane's prompt and the slot's own response.

    Args:
        q: [S, K, R, H] float, scaled; R = N/K query heads read each key-value head.
        prompts: entries of the lanes, and the mask [S, Tp] of the columns that each
            slot sees.
        responses: entries of the slots, and the mask [S, T] of their own columns.

    Returns:
        [S, K, R, H] float32; scores and softmax in float32.
    """
    slots, kv_heads, group, _ = q.shape
    lanes = prompts[0].values.shape[0]
    width = slots // lanes

    def by_lane(x: jax.Array) -> jax.Array:
        """[S, K, R, n] -> [lanes, K, width*R, n]."""
        x = x.reshape(lanes, width, kv_heads, group, -1).swapaxes(1, 2)
        return x.reshape(lanes, kv_heads, width * group, -1)

    def by_slot(x: jax.Array) -> jax.Array:
        x = x.reshape(lanes, kv_heads, width, group, -1).swapaxes(1, 2)
        return x.reshape(slots, kv_heads, group, -1)

    q = q.astype(jnp.float32)
    shared = by_slot(_scores(by_lane(q), prompts[0]))
    shared = jnp.where(prompts[1][:, None, None], shared, MASKED)
    own = jnp.where(responses[1][:, None, None], _scores(q, responses[0]), MASKED)
    top = jnp.maximum(
        jnp.max(shared, axis=-1, keepdims=True), jnp.max(own, axis=-1, keepdims=True)
    )
    shared, own = jnp.exp(shared - top), jnp.exp(own - top)
    total = jnp.sum(shared, -1, keepdims=True) + jnp.sum(own, -1, keepdims=True)
    context = by_slot(_context(by_lane(shared), prompts[0]))
    return (context + _context(own, responses[0])) / total


def _scores(q: jax.Array, kept: KeyValues) -> jax.Array:
    """Scores [n, K, Q, T] of q [n, K, Q, H]."""

    def sums(q: jax.Array, keys: jax.Array) -> jax.Array:
        return jnp.sum(q[..., None] * keys[:, :, None].astype(q.dtype), axis=3)

    def product(q: jax.Array, keys: jax.Array) -> jax.Array:
        return jnp.einsum("nkqh,nkht->nkqt", q, keys.astype(q.dtype))

    scores = _either(sums, product, q, kept.keys)
    if kept.key_scales is not None:
        scores = scores * kept.key_scales[:, :, None]
    return scores


def _context(weights: jax.Array, kept: KeyValues) -> jax.Array:
    """Sums of values [n, K, Q, H] under weights [n, K, Q, T]."""

    def sums(weights: jax.Array, values: jax.Array) -> jax.Array:
        values = values[:, :, None].astype(weights.dtype)
        return jnp.sum(weights[..., None] * values, axis=3)

    def product(weights: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.einsum("nkqt,nkth->nkqh", weights, values.astype(weights.dtype))

    if kept.value_scales is not None:
        weights = weights * kept.value_scales[:, :, None]
    return _either(sums, product, weights, kept.values)


def _either(sums: Any, product: Any, rows: jax.Array, kept: jax.Array) -> jax.Array:
    # A CPU's product of a few rows packs the cache first and widens a narrow one into
    # a copy; the sums read it where and as it lies.
    if rows.shape[2] >= PRODUCT_ROWS:
        return jnp.asarray(product(rows, kept))
    return jax.lax.platform_dependent(rows, kept, cpu=sums, default=product)


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
    size = cache.responses[0].values.shape[2]
    place = cache.step % size
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
            new = stored(k, v, dtype)
            kept = written(cache.responses[layer], new, 0, place)
            prompt_mask, own_mask = masks[c.window_of(layer)]
            context = slot_attention(
                q * c.head_dim**-0.5,
                (cache.prompts[layer], prompt_mask),
                (kept, own_mask),
            ).astype(q.dtype)
            return context.reshape(slots, 1, c.num_heads, -1), kept

        return attend

    hidden, kept = through_layers(model, params, tokens, (cos, sin), attend_at)
    return hidden, replace(cache, responses=tuple(kept), step=cache.step + 1)


def _slot_masks(
    cache: SlotCache, columns: jax.Array, place: jax.Array, window: int | None
) -> tuple[jax.Array, jax.Array]:
    """The columns that each slot sees: of its prompt [S, Tp], of the ring [S, T].

    With a window, only the newest `window` tokens, the slot's own among them.
    """
    size = cache.responses[0].values.shape[2]
    ages = ((place - jnp.arange(size)) % size)[None]
    own_mask = ages <= columns[:, None]
    shared = jnp.arange(cache.prompts[0].values.shape[2])[None]
    lengths = jnp.repeat(
        cache.prompt_lengths, columns.size // cache.prompt_lengths.size
    )[:, None]
    prompt_mask = shared < lengths
    if window is not None:
        own_mask &= ages < window
        prompt_mask &= lengths + columns[:, None] - shared < window
    return prompt_mask, own_mask
