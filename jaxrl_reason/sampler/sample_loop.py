"""Prefills once per prompt, then draws one token per step for all responses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Params, Transformer, prefill
from jaxrl_reason.models.decode_step import ResponseCache, decode_step
from jaxrl_reason.models.params import DecodeParams, decode_logits, decode_params
from jaxrl_reason.sampler.next_tokens import next_tokens
from jaxrl_reason.sampler.prompts import check_prompts
from jaxrl_reason.sampler.settings import Completions, SamplingSettings

# The cache grows in up to this many stages, so that early steps do not read empty
# columns. Every stage is compiled separately: short ones are not worth it.
STAGES = 4
SHORTEST_STAGE = 32

Sampler = Callable[[Params, jax.Array, jax.Array, jax.Array], Completions]


@flax.struct.dataclass
class _State:
    """The loop's state; `column` is the next response column to fill."""

    column: jax.Array  # scalar
    last: jax.Array  # [B] tokens of the previous column
    ended: jax.Array  # [B] bool
    tokens: jax.Array  # [T, B]
    logprobs: jax.Array  # [T, B]
    lengths: jax.Array  # [B]
    cache: ResponseCache


def sample(
    model: Transformer,
    params: Params,
    prompt_tokens: jax.Array,
    prompt_lengths: jax.Array,
    keys: jax.Array,
    first_columns: jax.Array | None = None,
    given: jax.Array | None = None,
    *,
    settings: SamplingSettings,
    num_samples: int,
) -> Completions:
    """Draw G responses to each of P prompts.

    Args:
      model: the policy.
      params: its parameters.
      prompt_tokens: [P, Tp] ids, right-padded.
      prompt_lengths: [P] tokens of each prompt, from 1 to Tp.
      keys: [P*G] from `sampling_keys`.
      first_columns: [P*G] of responses that go on: the prompt ends with their tokens
        so far, and the draws are those of these columns and later ones.
      given: [P*G, T] tokens to take in place of drawn ones, where not negative.
      settings: how to draw; static.
      num_samples: G; static.

    Returns:
      Completions of B = P*G rows.

    Raises:
      ValueError: a shape or length does not fit; see `check_sampling`.
    """
    prompts, width = prompt_tokens.shape
    rows, size = prompts * num_samples, settings.max_new_tokens
    check_sampling(model, settings, num_samples, prompt_width=width)
    if keys.shape != (rows,):
        raise ValueError(f"keys must be one per response, ({rows},), got {keys.shape}")
    hidden, prefix = prefill(model, params, prompt_tokens, prompt_lengths)  # [P, D]
    decode = decode_params(model, params, prompt_lengths, size)
    hidden = jnp.repeat(hidden, num_samples, axis=0)  # [B, D]
    none = jax.tree.map(  # [B, K, 0, H]
        lambda x: jnp.zeros((rows, x.shape[1], 0, x.shape[3]), x.dtype),
        (prefix.keys, prefix.values),
    )
    nothing_yet = _State(
        column=jnp.zeros((), jnp.int32),
        last=jnp.zeros(rows, jnp.int32),
        ended=jnp.zeros(rows, bool),
        tokens=jnp.zeros((size, rows), jnp.int32),
        logprobs=jnp.zeros((size, rows), jnp.float32),
        lengths=jnp.zeros(rows, jnp.int32),
        cache=ResponseCache(*none),
    )
    first = 0 if first_columns is None else first_columns
    append = partial(_append, model, params=decode, keys=keys, first=first, given=given)
    state = append(nothing_yet, hidden, settings=settings)

    def unfinished(end: int, state: _State) -> jax.Array:
        return (state.column < end) & ~jnp.all(state.ended)

    def step(state: _State) -> _State:
        hidden, cache = decode_step(
            model, decode, state.last, state.column - 1, prefix, state.cache
        )
        state = replace(state, cache=cache)
        return append(state, hidden, settings=settings)

    for end in stage_ends(size):
        if end == 1:
            break  # A single token needs no step.
        # [B, K, T, H]: room for the tokens fed up to the stage's end.
        more = end - 1 - state.cache.keys[0].shape[2]
        grow = partial(jnp.pad, pad_width=((0, 0), (0, 0), (0, more), (0, 0)))
        state = replace(state, cache=jax.tree.map(grow, state.cache))
        state = jax.lax.while_loop(partial(unfinished, end), step, state)
    return Completions(
        state.tokens.T, state.logprobs.T, state.lengths, truncated=~state.ended
    )


@dataclass(frozen=True)
class PlainSampler:
    """A compiled `sample` that refuses prompts which its model cannot read.

    Attributes:
      program: of `jax.jit`, without the check.
      vocab_size: of the model.
    """

    program: Any
    vocab_size: int

    def __call__(
        self,
        params: Params,
        prompt_tokens: jax.Array,
        prompt_lengths: jax.Array,
        keys: jax.Array,
        *more: jax.Array,
    ) -> Completions:
        """Draws; `more` are the further arguments of `sample`.

        Raises:
          ValueError: this process has the prompts, and `check_prompts` refuses them.
        """
        if all(map(_is_here, (prompt_tokens, prompt_lengths))):
            tokens, lengths = map(np.asarray, (prompt_tokens, prompt_lengths))
            check_prompts(tokens, lengths, tokens.shape[1], self.vocab_size)
        drawn: Completions = self.program(
            params, prompt_tokens, prompt_lengths, keys, *more
        )
        return drawn


def make_sampler(
    model: Transformer, settings: SamplingSettings, num_samples: int
) -> PlainSampler:
    """A compiled `sample`, called (params, prompt_tokens, prompt_lengths, keys).

    Raises:
      ValueError: settings, model and num_samples do not fit together.
    """
    check_sampling(model, settings, num_samples)
    program = jax.jit(
        partial(sample, model, settings=settings, num_samples=num_samples)
    )
    return PlainSampler(program, model.config.vocab_size)


def _is_here(x: Any) -> bool:
    """Whether an array has values, all of them in this process."""
    traced = isinstance(x, jax.core.Tracer)
    return not traced and (not isinstance(x, jax.Array) or x.is_fully_addressable)


def check_sampling(
    model: Transformer,
    settings: SamplingSettings,
    num_samples: int,
    *,
    prompt_width: int = 1,
) -> None:
    """Raises for settings that cannot be sampled with.

    Raises:
      ValueError: prompt_width + max_new_tokens is more than context_length, a token
        of the settings is outside the vocabulary or every token is banned, or
        num_samples < 1.
    """
    c = model.config
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    if prompt_width + settings.max_new_tokens > c.context_length:
        raise ValueError(
            f"prompt and max_new_tokens must fit the model's context_length "
            f"({c.context_length}), got {prompt_width} + {settings.max_new_tokens}"
        )
    for name, tokens in (
        ("eos_token_ids", settings.eos_token_ids),
        ("logit_bias", tuple(token for token, _ in settings.logit_bias)),
        ("banned_tokens", settings.banned_tokens),
    ):
        outside = [token for token in tokens if token >= c.vocab_size]
        if outside:
            raise ValueError(
                f"{name} must be below vocab_size ({c.vocab_size}), got {outside}"
            )
    if len(set(settings.banned_tokens)) >= c.vocab_size:
        raise ValueError("banned_tokens must leave a token to draw, got all of them")


def stage_ends(size: int) -> list[int]:
    """The response lengths at which the cache grows, the last one `size`.

    >>> stage_ends(90), stage_ends(512), stage_ends(3)
    ([32, 64, 90], [128, 256, 384, 512], [3])
    """
    stage = max(SHORTEST_STAGE, -(-size // (8 * STAGES)) * 8)
    return [*range(stage, size, stage), size]


def _append(
    model: Transformer,
    state: _State,
    hidden: jax.Array,
    params: DecodeParams,
    keys: jax.Array,
    first: jax.Array | int,
    settings: SamplingSettings,
    given: jax.Array | None = None,
) -> _State:
    """Draws the token of one column from hidden states [B, D] and records it."""
    with jax.named_scope("head"):
        logits = decode_logits(model, params, hidden)  # [B, V]
    with jax.named_scope("draw"):
        column = state.column + first
        at = None if given is None else jnp.take(given, state.column, axis=1)  # [B]
        tokens, logprobs = next_tokens(logits, keys, column, settings, at)  # [B]
    active = ~state.ended  # [B]
    tokens = jnp.where(active, tokens, 0)
    logprobs = jnp.where(active, logprobs, 0.0)
    ends = jnp.asarray(settings.eos_token_ids, jnp.int32)
    put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=state.column, axis=0)
    return replace(
        state,
        column=state.column + 1,
        last=tokens,
        ended=state.ended | jnp.any(tokens[:, None] == ends[None], axis=1) & active,
        tokens=put(state.tokens, tokens[None]),
        logprobs=put(state.logprobs, logprobs[None]),
        lengths=state.lengths + active,
    )


def pad_prompts(
    prompts: Sequence[Sequence[int]],
    problem_ids: Sequence[int],
    longest: int,
    *,
    multiple_of: int | None = None,
    limit: str = "",
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as one array, right-padded with zeros.

    Args:
      prompts: token ids.
      problem_ids: of the problems, for the error.
      longest: largest number of tokens of a prompt.
      multiple_of: the width is the smallest multiple of this that holds every prompt,
        at most `longest`; None for `longest` itself.
      limit: the origin of `longest`, for the error.

    Returns:
      [P, W] ids and [P] lengths, int32.

    Raises:
      ValueError: a prompt is empty or too long; names the problem.

    Example:
      >>> tokens, lengths = pad_prompts([[5, 6, 7], [8]], [0, 1], 4)
      >>> tokens.tolist(), lengths.tolist()
      ([[5, 6, 7, 0], [8, 0, 0, 0]], [3, 1])
      >>> pad_prompts([[5, 6, 7]], [0], 100, multiple_of=64)[0].shape
      (1, 64)
    """
    for prompt, problem_id in zip(prompts, problem_ids, strict=True):
        if not 1 <= len(prompt) <= longest:
            raise ValueError(
                f"a prompt must have 1 to {longest} tokens{limit and f' ({limit})'}, "
                f"got {len(prompt)} for problem {problem_id}"
            )
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    width = longest
    if multiple_of is not None:
        width = min(-(-int(lengths.max()) // multiple_of) * multiple_of, longest)
    tokens = np.zeros((len(prompts), width), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths
