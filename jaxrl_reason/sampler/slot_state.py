"""The device side of a batch sampler: slots that are filled, stepped and shrunk."""

from dataclasses import replace
from functools import partial, wraps
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models import PrefixCache, Transformer
from jaxrl_reason.models.key_values import (
    quantize,
    roll,
    round_up,
    update_slice,
)
from jaxrl_reason.models.params import DecodeParams, decode_logits
from jaxrl_reason.models.slot_cache import (
    SlotCache,
    empty_slots,
    slot_step,
    split_slots,
)
from jaxrl_reason.sampler.next_tokens import next_tokens
from jaxrl_reason.sampler.settings import (
    BatchSettings,
    SamplingSettings,
    TopLogprobs,
)
from jaxrl_reason.sharding import Constrainer, stationary


@flax.struct.dataclass
class Slots:
    """The contents of S slots in N prompt groups.

    Attributes:
      active: [S] whether a slot still draws.
      ended: [S] whether the slot's last sequence drew an EOS token.
      columns: [S] number of tokens that its sequence has drawn.
      keys: [S] raw random keys.
      hidden: [S, D] hidden state that the next token is drawn from.
      tokens: [S, T] tokens drawn so far.
      logprobs: [S, T] their log-probs.
      top_logprobs: arrays [S, T, k], or None.
      prompt_hidden: [N, D] the hidden state of a group's last prompt token.
      cache: the keys and values that the slots read.
    """

    active: jax.Array
    ended: jax.Array
    columns: jax.Array
    keys: jax.Array
    hidden: jax.Array
    tokens: jax.Array
    logprobs: jax.Array
    top_logprobs: TopLogprobs | None
    prompt_hidden: jax.Array
    cache: SlotCache

    @property
    def cache_length(self) -> int:
        """The number of response columns of the cache."""
        return self.cache.responses[0].size


def empty(
    model: Transformer,
    settings: SamplingSettings,
    batch: BatchSettings,
    key_size: int,
    common: PrefixCache | None,
) -> Slots:
    """Slots without a sequence.

    `key_size` is the size of a raw key, `common` the cache of the common prefix.
    """
    size, slots, dtype = settings.max_new_tokens, batch.slots, model.config.dtype
    kept = (slots, size, batch.top_logprobs)  # [S, T, k]
    top = TopLogprobs(jnp.zeros(kept, jnp.int32), jnp.zeros(kept))
    return Slots(
        active=jnp.zeros(slots, bool),
        ended=jnp.zeros(slots, bool),
        columns=jnp.zeros(slots, jnp.int32),
        keys=jnp.zeros((slots, key_size), jnp.uint32),
        hidden=jnp.zeros((slots, model.config.hidden_size), dtype),
        tokens=jnp.zeros((slots, size), jnp.int32),
        logprobs=jnp.zeros((slots, size)),
        top_logprobs=top if batch.top_logprobs else None,
        prompt_hidden=jnp.zeros((batch.num_groups, model.config.hidden_size), dtype),
        cache=empty_slots(
            model,
            batch.num_groups,
            batch.slots_per_group,
            (batch.own_widths[-1], allowed_cache_lengths(batch, size)[0]),
            batch.cache_dtype,
            batch.block,
            common,
        ),
    )


def allowed_cache_lengths(batch: BatchSettings, max_new_tokens: int) -> list[int]:
    """The numbers of response columns that the cache may have, in whole blocks.

    >>> batch = BatchSettings(8, (4,), cache_lengths=(30, 32, 64), cache_block=0)
    >>> allowed_cache_lengths(batch, 50)
    [30, 32, 50]
    >>> allowed_cache_lengths(replace(batch, cache_block=16), 50)
    [32, 64]
    """
    sizes = [*(n for n in batch.cache_lengths if n < max_new_tokens), max_new_tokens]
    return sorted({round_up(n, batch.block) for n in sizes})


def install(
    state: Slots,
    hidden: jax.Array,
    prefix: PrefixCache,
    row: jax.Array,
    group: Any,
) -> Slots:
    """Gives a group one of the prompts of a prefill."""
    cache = state.cache
    dtype, blocks = str(cache.prompts[0].values.dtype), cache.prompts[0].blocks

    def one(x: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, row, 1)  # [P, ...] -> [1, ...]

    prompts = tuple(
        update_slice(kept, quantize(one(keys), one(values), dtype, blocks), group, 0)
        for kept, keys, values in zip(
            cache.prompts, prefix.keys, prefix.values, strict=True
        )
    )
    length = cache.common_size + prefix.lengths[row]
    lengths = cache.prompt_lengths.at[group].set(length)  # [N]
    return replace(
        state,
        prompt_hidden=state.prompt_hidden.at[group].set(hidden[row]),
        cache=replace(cache, prompts=prompts, prompt_lengths=lengths),
    )


def refill(state: Slots, fresh: jax.Array, keys: jax.Array) -> Slots:
    """Starts sequences in the slots where `fresh` [S] is True, with raw keys [S, n]."""
    width = fresh.shape[0] // state.prompt_hidden.shape[0]
    hidden = jnp.repeat(state.prompt_hidden, width, axis=0)  # [S, D]
    return replace(
        state,
        active=state.active | fresh,
        ended=state.ended & ~fresh,
        columns=jnp.where(fresh, 0, state.columns),
        keys=jnp.where(fresh[:, None], keys, state.keys),
        hidden=jnp.where(fresh[:, None], hidden, state.hidden),
    )


def release(state: Slots, stopped: jax.Array) -> Slots:
    """Stops the slots where `stopped` [S] is True."""
    return replace(state, active=state.active & ~stopped)


def shrink(state: Slots, slots: jax.Array, groups: jax.Array) -> Slots:
    """The state of fewer slots and groups, in the given order."""
    cache = state.cache
    hidden, prompts, lengths = jax.tree.map(
        lambda x: x[groups], (state.prompt_hidden, cache.prompts, cache.prompt_lengths)
    )
    by_slot = {
        name: getattr(state, name)
        for name in state.__dataclass_fields__
        if name not in ("prompt_hidden", "cache")
    }
    kept, responses = jax.tree.map(lambda x: x[slots], (by_slot, cache.responses))
    return Slots(
        prompt_hidden=hidden,
        cache=replace(
            cache, prompts=prompts, responses=responses, prompt_lengths=lengths
        ),
        **kept,
    )


def widen(state: Slots, size: int, *, block: int) -> Slots:
    """The same slots with a cache of `size` response columns, more than it had."""
    cache = state.cache
    responses = tuple(roll(x, cache.step, size, block) for x in cache.responses)
    step = jnp.full((), state.cache_length, jnp.int32)
    return replace(state, cache=replace(cache, responses=responses, step=step))


def advance(
    params: DecodeParams,
    state: Slots,
    steps: jax.Array,
    enough: jax.Array,
    *,
    model: Transformer,
    settings: SamplingSettings,
    key_impl: str,
) -> Slots:
    """Draws up to `steps` tokens per slot, while at least `enough` are active."""

    def going(carry: tuple[jax.Array, Slots]) -> jax.Array:
        return (carry[0] < steps) & (jnp.sum(carry[1].active) >= enough)

    def step(carry: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
        count, state = carry
        state = _draw(model, params, state, settings, key_impl)
        last = jnp.maximum(state.columns - 1, 0)  # [S]
        at = jnp.arange(last.shape[0])
        hidden, cache = slot_step(
            model, params, state.tokens[at, last], last, state.cache
        )
        return count + 1, replace(state, hidden=hidden, cache=cache)

    return jax.lax.while_loop(going, step, (jnp.zeros((), jnp.int32), state))[1]


def _draw(
    model: Transformer,
    params: DecodeParams,
    state: Slots,
    settings: SamplingSettings,
    key_impl: str,
) -> Slots:
    """Draws the next token of every active slot and records it."""
    keys = jax.random.wrap_key_data(state.keys, impl=key_impl)  # [S]
    with jax.named_scope("head"):
        logits = decode_logits(model, params, state.hidden)  # [S, V]
    with jax.named_scope("draw"):
        tokens, logprobs = next_tokens(logits, keys, state.columns, settings)  # [S]
    size = settings.max_new_tokens
    # [S, T]: where an active slot writes its token
    here = (jnp.arange(size)[None] == state.columns[:, None]) & state.active[:, None]
    top = state.top_logprobs
    if top is not None:
        new = top_logprobs(logits, settings, top.tokens.shape[-1])
        top = jax.tree.map(
            lambda old, x: jnp.where(here[..., None], x[:, None], old), top, new
        )
    ends = jnp.asarray(settings.eos_token_ids, jnp.int32)
    ends_now = jnp.any(tokens[:, None] == ends[None], axis=1) & state.active  # [S]
    columns = state.columns + state.active  # [S]
    return replace(
        state,
        active=state.active & ~ends_now & (columns < size),
        ended=state.ended | ends_now,
        columns=columns,
        tokens=jnp.where(here, tokens[:, None], state.tokens),
        logprobs=jnp.where(here, logprobs[:, None], state.logprobs),
        top_logprobs=top,
    )


def top_logprobs(logits: jax.Array, settings: SamplingSettings, count: int) -> Any:
    """The `count` likeliest tokens of logits [B, V], as TopLogprobs [B, count]."""
    logits = logits / (settings.temperature or 1.0)
    top, tokens = jax.lax.top_k(logits, count)  # [B, count]
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)  # [B, 1]
    return TopLogprobs(tokens.astype(jnp.int32), top - total)


@flax.struct.dataclass
class Programs:
    """The compiled functions of a batch sampler; they donate their states.

    Attributes:
      empty: returns a state of free slots.
      install: gives groups their prompts.
      refill: starts new sequences in free slots.
      release: frees slots.
      shrink: reduces the number of slots.
      widen: enlarges the ring buffer.
      advance: draws tokens.
    """

    empty: Any = flax.struct.field(pytree_node=False)
    install: Any = flax.struct.field(pytree_node=False)
    refill: Any = flax.struct.field(pytree_node=False)
    release: Any = flax.struct.field(pytree_node=False)
    shrink: Any = flax.struct.field(pytree_node=False)
    widen: Any = flax.struct.field(pytree_node=False)
    advance: Any = flax.struct.field(pytree_node=False)


def split_state(model: Transformer, state: Slots) -> Slots:
    """The state split over the model's mesh: slots and groups over the batch axes.

    Hidden states are split as a decode step leaves them; those of the prompts, which
    any slot may start from, are whole.
    """
    constrain = model.constrain
    hidden = stationary(constrain)

    def by_row(x: jax.Array) -> jax.Array:
        return constrain(x, ("batch", *(None,) * (x.ndim - 1)))

    fields = {
        name: jax.tree.map(by_row, getattr(state, name))
        for name in state.__dataclass_fields__
        if name not in ("hidden", "prompt_hidden", "cache")
    }
    return Slots(
        hidden=hidden(state.hidden, ("batch", "residual")),
        prompt_hidden=constrain(state.prompt_hidden, (None, None)),
        cache=split_slots(constrain, state.cache),
        **fields,
    )


def compiled(
    model: Transformer, settings: SamplingSettings, batch: BatchSettings
) -> Programs:
    """The functions of a batch sampler, each compiled on first use."""
    fixed = partial(advance, model=model, settings=settings)

    def jit(program: Any, **how: Any) -> Any:
        @wraps(program.func if isinstance(program, partial) else program)
        def split(*arguments: Any, **named: Any) -> Slots:
            return split_state(model, program(*arguments, **named))

        on_mesh = isinstance(model.constrain, Constrainer)
        return jax.jit(split if on_mesh else program, **how)

    return Programs(
        empty=jit(partial(empty, model, settings, batch), static_argnums=0),
        install=jit(install, donate_argnums=0),
        refill=jit(refill, donate_argnums=0),
        release=jit(release, donate_argnums=0),
        shrink=jit(shrink),
        widen=jit(partial(widen, block=batch.block), static_argnames="size"),
        advance=jit(fixed, static_argnames="key_impl", donate_argnums=1),
    )
