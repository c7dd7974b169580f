"""Continuous batching: a slot takes the next sequence as soon as its own has ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.models.params import DecodeParams, decode_params
from jaxrl_reason.sampler.prompts import PromptReader, Prompts
from jaxrl_reason.sampler.rollout_engine import OnResponse
from jaxrl_reason.sampler.sample_loop import check_sampling
from jaxrl_reason.sampler.settings import (
    BatchSettings,
    Completions,
    SamplingSettings,
    TopLogprobs,
)
from jaxrl_reason.sampler.slot_scheduler import SlotScheduler
from jaxrl_reason.sampler.slot_state import Slots, allowed_cache_lengths, compiled
from jaxrl_reason.sampler.stops import StopCheck
from jaxrl_reason.sharding import parts_of
from jaxrl_reason.sharding.processes import fetch

# (row of the completions, new tokens since the last call, whether it has ended)
OnTokens = Callable[[int, tuple[int, ...], bool], None]


@dataclass
class _Run:
    """The state of one call, on the host."""

    params: DecodeParams
    prompts: Prompts
    keys: np.ndarray
    key_impl: str
    scheduler: SlotScheduler
    slots: Slots
    out: Completions
    stops: Sequence[StopCheck]
    on_tokens: OnTokens | None
    on_response: OnResponse | None
    seen: np.ndarray  # [B] tokens of each response that were checked
    columns: np.ndarray  # [S] number of tokens of each slot's sequence


class BatchSampler:
    """Draws the same responses as the sampler of `make_sampler`, with less waiting.

    A response depends only on its prompt and key: slots, groups, widths and order
    change only the last digits of the log-probs. (A sum in another order can change a
    draw that is within rounding of a token's boundary; so can another batch size of the
    plain sampler.)

    Args:
      model: the policy.
      settings: how to draw.
      num_samples: G.
      batch: how to use memory and time.

    Raises:
      ValueError: settings, model and num_samples do not fit together.
    """

    reports_responses = True

    def __init__(
        self,
        model: Transformer,
        settings: SamplingSettings,
        num_samples: int,
        batch: BatchSettings,
    ) -> None:
        width = batch.prompt_widths[-1]
        check_sampling(model, settings, num_samples, prompt_width=width)
        outside = [
            t for t in batch.common_prefix if not 0 <= t < model.config.vocab_size
        ]
        if outside:
            raise ValueError(
                f"common_prefix must have tokens from 0 to below vocab_size "
                f"({model.config.vocab_size}), got {outside}"
            )
        counts, parts = (
            (batch.slots, *batch.shrink_to),
            parts_of(model.constrain, "batch"),
        )
        if any(count % parts for count in counts):
            raise ValueError(
                f"slots and shrink_to must be multiples of {parts}, the parts into "
                f"which the mesh splits rows, got {counts}"
            )
        if batch.top_logprobs > model.config.vocab_size:
            raise ValueError(
                f"top_logprobs must be at most vocab_size "
                f"({model.config.vocab_size}), got {batch.top_logprobs}"
            )
        self.settings, self.batch, self.num_samples = settings, batch, num_samples
        self._programs = compiled(model, settings, batch)
        self._reader = PromptReader(model, batch)
        size = width + settings.max_new_tokens
        self._cache_lengths = allowed_cache_lengths(batch, settings.max_new_tokens)
        # Compiled in parts: see decode_params.
        self._decode_params = partial(
            decode_params, model, prompt_lengths=jnp.zeros(1, jnp.int32), size=size
        )

    def __call__(
        self,
        params: Params,
        prompt_tokens: Any,
        prompt_lengths: Any,
        keys: jax.Array,
        *,
        stops: Sequence[StopCheck] = (),
        on_tokens: OnTokens | None = None,
        on_response: OnResponse | None = None,
    ) -> Completions:
        """Draw G responses to each of P prompts.

        Args:
          params: the model's parameters.
          prompt_tokens: [P, Tp] ids, right-padded.
          prompt_lengths: [P] tokens of each prompt.
          keys: [P*G] from `sampling_keys`.
          stops: what ends responses besides the settings' EOS tokens; see
            `stop_strings` and `stop_sequences`. A response includes what stopped it.
          on_tokens: called with each response's new tokens as they are drawn.
          on_response: called with each response when it is complete.

        Returns:
          Completions of B = P*G rows as NumPy arrays; `truncated` is False for a
          response that was stopped.

        Raises:
          ValueError: a shape or length does not fit, or a prompt does not begin with
            `common_prefix`.
        """
        run = self._start(params, prompt_tokens, prompt_lengths, keys)
        run.stops, run.on_tokens, run.on_response = stops, on_tokens, on_response
        self._refill(run)
        while occupied := run.scheduler.occupied():
            steps = min(self.batch.steps, self._room(run, occupied))
            run.slots = self._programs.advance(
                run.params,
                run.slots,
                steps,
                self._enough(run.scheduler, len(occupied)),
                key_impl=run.key_impl,
            )
            self._harvest(run, occupied)
            self._refill(run)
            self._shrink(run)
        return run.out

    def warm_up(self, params: Params, keys: jax.Array) -> None:
        """Compiles all that a call can need; draws nothing.

        Args:
          params: of the later calls' shapes.
          keys: [P*G], of the later calls' type.
        """
        batch, programs = self.batch, self._programs
        prompts = keys.shape[0] // self.num_samples
        shortest = [*batch.common_prefix, 0]
        run = self._start(
            params,
            np.tile(np.array(shortest, np.int32), (prompts, 1)),
            np.full(prompts, len(shortest), np.int32),
            keys,
        )
        prefixes = [run.prompts.read([0], width) for width in batch.own_widths]
        state: Any = run.slots
        counts = (batch.slots, *batch.shrink_to)
        raw = np.zeros((batch.slots, run.keys.shape[1]), np.uint32)  # [S, n]
        for slots, fewer in zip(counts, (*counts[1:], 0), strict=True):
            nobody, smaller = np.zeros(slots, bool), None  # [S]
            for size in self._cache_lengths:
                if size > self._cache_lengths[0]:
                    state = programs.widen(state, size=size)
                if slots == batch.slots:
                    for hidden, prefix in prefixes:
                        state = programs.install(state, hidden, prefix, 0, 0)
                    state = programs.refill(state, nobody, raw)
                state = programs.release(state, nobody)
                state = programs.advance(run.params, state, 0, 1, key_impl=run.key_impl)
                if fewer:
                    kept = np.arange(fewer, dtype=np.int32)
                    less = programs.shrink(
                        state, kept, kept[: fewer // batch.slots_per_group]
                    )
                    smaller = less if smaller is None else smaller
            state = smaller

    def _start(self, params: Params, tokens: Any, lengths: Any, keys: Any) -> _Run:
        tokens, lengths = fetch((tokens, lengths))
        rows = tokens.shape[0] * self.num_samples
        if keys.shape != (rows,):
            raise ValueError(
                f"keys must be one per response, ({rows},), got {keys.shape}"
            )
        prompts = self._reader.start(params, tokens, lengths)
        raw = fetch(jax.random.key_data(keys))  # [B, n]
        batch, order = self.batch, prompts.order()
        return _Run(
            params=self._decode_params(params),
            prompts=prompts,
            keys=raw,
            key_impl=str(jax.random.key_impl(keys)),
            scheduler=SlotScheduler(
                order, self.num_samples, batch.num_groups, batch.slots_per_group
            ),
            slots=self._programs.empty(raw.shape[1], prompts.common),
            out=_blank(rows, self.settings.max_new_tokens, batch.top_logprobs),
            stops=(),
            on_tokens=None,
            on_response=None,
            seen=np.zeros(rows, np.int32),
            columns=np.zeros(batch.slots, np.int32),
        )

    def _refill(self, run: _Run) -> None:
        ahead = list(run.scheduler.unread)
        installs, fresh = run.scheduler.assign()
        for group, prompt in installs:
            hidden, prefix, row = run.prompts.get(prompt, ahead)
            run.slots = self._programs.install(run.slots, hidden, prefix, row, group)
        run.prompts.retain(run.scheduler.waiting_prompts())
        if fresh:
            slots, requests = np.array(fresh).T
            mask = np.zeros(len(run.scheduler.requests), bool)  # [S]
            mask[slots] = True
            run.columns[slots] = 0
            keys = np.zeros((mask.size, run.keys.shape[1]), np.uint32)  # [S, n]
            keys[slots] = run.keys[requests]
            run.slots = self._programs.refill(run.slots, mask, keys)

    def _enough(self, scheduler: SlotScheduler, active: int) -> int:
        """The number of active slots below which the host has work to do."""
        if scheduler.waiting:
            return max(1, active - max(1, int(self.batch.refill_fraction * active)) + 1)
        now = len(scheduler.requests)
        smaller = max((n for n in self.batch.shrink_to if n < now), default=0)
        return active if smaller >= active else smaller + 1

    def _room(self, run: _Run, occupied: list[int]) -> int:
        """The steps for which the cache has columns; grows it if there are none."""
        oldest = int(run.columns[occupied].max())
        size = run.slots.cache_length
        if oldest == size < self._cache_lengths[-1]:
            size = self._cache_lengths[self._cache_lengths.index(size) + 1]
            run.slots = self._programs.widen(run.slots, size=size)
        return size - oldest

    def _shrink(self, run: _Run) -> None:
        if run.scheduler.waiting or not run.scheduler.occupied():
            return
        width = run.scheduler.width
        for slots in self.batch.shrink_to:
            fits = (
                run.scheduler.groups_needed() * width
                <= slots
                < len(run.scheduler.requests)
            )
            if fits:
                order, groups = run.scheduler.shrink(slots // width)
                run.slots = self._programs.shrink(
                    run.slots, np.array(order, np.int32), np.array(groups, np.int32)
                )
                run.columns = run.columns[order]

    def _harvest(self, run: _Run, occupied: list[int]) -> None:
        """Takes finished responses out of their slots; stops and reports the others."""
        state = run.slots
        active, columns = fetch((state.active, state.columns))  # [S]
        run.columns = np.array(columns)
        watched = run.stops or run.on_tokens
        chosen = [slot for slot in occupied if watched or not active[slot]]
        if not chosen:
            return
        ended, tokens, logprobs, top = fetch(
            (state.ended, state.tokens, state.logprobs, state.top_logprobs)
        )
        stopped = np.zeros(active.size, bool)  # [S]
        for slot in chosen:
            row, size = run.scheduler.requests[slot], int(run.columns[slot])
            at = _stopped_at(run.stops, tokens[slot, :size].tolist(), run.seen[row])
            stopped[slot] = active[slot] and at is not None
            done = at is not None or not active[slot]
            size = size if at is None else at
            if run.on_tokens:
                new = tokens[slot, run.seen[row] : size].tolist()
                run.on_tokens(row, tuple(new), done)
            run.seen[row] = size
            if done:
                truncated = at is None and not ended[slot]
                drawn = (tokens[slot], logprobs[slot], top, slot)
                _record(run.out, row, size, truncated, drawn)
                if run.on_response:
                    run.on_response(row, tokens[slot, :size].tolist(), bool(truncated))
                run.scheduler.free(slot)
        if stopped.any():
            run.slots = self._programs.release(run.slots, stopped)


def _stopped_at(stops: Sequence[StopCheck], tokens: list[int], seen: int) -> int | None:
    found = (stop(tokens, int(seen)) for stop in stops)
    return min((size for size in found if size is not None), default=None)


def _blank(rows: int, size: int, top_logprobs: int) -> Completions:
    fields: Any = (
        np.zeros((rows, size), np.int32),
        np.zeros((rows, size), np.float32),
        np.zeros(rows, np.int32),
        np.zeros(rows, bool),
    )
    top: Any = (
        np.zeros((rows, size, top_logprobs), np.int32),
        np.zeros((rows, size, top_logprobs), np.float32),
    )
    tokens, logprobs, lengths, truncated = fields
    return Completions(
        tokens,
        logprobs,
        lengths,
        truncated,
        TopLogprobs(*top) if top_logprobs else None,
    )


def _record(out: Any, row: int, size: int, truncated: bool, drawn: Any) -> None:
    tokens, logprobs, top, slot = drawn
    out.tokens[row, :size] = tokens[:size]
    out.logprobs[row, :size] = logprobs[:size]
    out.lengths[row], out.truncated[row] = size, truncated
    if top is not None:
        out.top_logprobs.tokens[row, :size] = top.tokens[slot, :size]
        out.top_logprobs.logprobs[row, :size] = top.logprobs[slot, :size]


def make_batch_sampler(
    model: Transformer,
    settings: SamplingSettings,
    num_samples: int,
    batch: BatchSettings,
) -> BatchSampler:
    """A `BatchSampler`, called like the sampler of `make_sampler`.

    Raises:
      ValueError: settings, model and num_samples do not fit together.
    """
    return BatchSampler(model, settings, num_samples, batch)
