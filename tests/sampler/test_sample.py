import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.sampler import (
    Completions,
    SamplingSettings,
    make_sampler,
    sampling_keys,
)
from jaxrl_reason.sampler.next_tokens import next_tokens
from tests.models.numpy_transformer import TINY, VARIANTS, build, compiled, tokens_of

PROMPTS, SAMPLES, WIDTH, SIZE = 3, 4, 6, 12
LENGTHS = jnp.array([6, 2, 4])
SETTINGS = SamplingSettings(max_new_tokens=SIZE, eos_token_ids=(3, 11))


cached_sampler = functools.cache(make_sampler)


def run(
    model: Transformer,
    params: Any,
    settings: SamplingSettings = SETTINGS,
    ids: tuple[int, ...] = (10, 11, 12),
    samples: int = SAMPLES,
) -> Completions:
    """Responses to the prompts `ids` - 10, in that order."""
    order = np.array(ids) - 10
    keys = sampling_keys(0, 1, jnp.array(ids), samples)
    return cached_sampler(model, settings, samples)(
        params, tokens_of(PROMPTS, WIDTH)[order], LENGTHS[order], keys
    )


def trainer_logprobs(
    model: Transformer, params: Any, got: Completions, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probs [B, T] by the training forward, and its logits [B, T, V]."""
    rows, width = got.tokens.shape[0], WIDTH + SIZE
    tokens, segments = (np.zeros((rows, width), np.int32) for _ in range(2))
    starts = np.repeat(LENGTHS, rows // PROMPTS)
    for b in range(rows):
        start, size = starts[b], int(got.lengths[b])
        tokens[b, :start] = tokens_of(PROMPTS, WIDTH)[b * PROMPTS // rows, :start]
        tokens[b, start : start + size] = got.tokens[b, :size]
        segments[b, : start + size] = 1
    positions = jnp.broadcast_to(jnp.arange(width)[None], tokens.shape)
    hidden = compiled(model)(
        {"params": params}, jnp.asarray(tokens), positions, jnp.asarray(segments)
    )
    head = unembedding(model, params)
    columns = jnp.asarray(starts)[:, None] - 1 + jnp.arange(SIZE)[None]
    hidden = jnp.take_along_axis(hidden, columns[..., None], axis=1)
    logprobs, _ = chunked_logprobs(hidden, head, got.tokens, temperature=temperature)
    return logprobs, hidden @ head


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("name", ["grouped", "everything"])
def test_log_probs_are_the_trainer_s(name: str, temperature: float) -> None:
    model, params = build(VARIANTS[name])
    settings = replace(SETTINGS, temperature=temperature, eos_token_ids=(3,), top_p=0.9)
    got = run(model, params, settings)
    wanted, _ = trainer_logprobs(model, params, got, temperature)
    assert len({int(n) for n in got.lengths}) > 1
    drawn = np.arange(SIZE) < np.asarray(got.lengths)[:, None]
    np.testing.assert_allclose(got.logprobs, np.where(drawn, wanted, 0), atol=1e-5)


@pytest.mark.parametrize("name", ["grouped", "everything"])
def test_greedy_is_the_argmax_of_the_full_forward(name: str) -> None:
    model, params = build(VARIANTS[name])
    got = run(model, params, replace(SETTINGS, temperature=0.0))
    wanted, logits = trainer_logprobs(model, params, got, 1.0)
    drawn = np.arange(SIZE) < np.asarray(got.lengths)[:, None]
    likeliest = np.where(drawn, jnp.argmax(logits, -1), 0)
    np.testing.assert_array_equal(got.tokens, likeliest)
    np.testing.assert_allclose(got.logprobs, np.where(drawn, wanted, 0), atol=1e-5)
    # The samples of a prompt read the same cache, so greedily they are all the same.
    grouped = np.asarray(got.tokens).reshape(PROMPTS, SAMPLES, SIZE)
    np.testing.assert_array_equal(grouped, np.repeat(grouped[:, :1], SAMPLES, axis=1))


def test_responses_end_at_the_first_end_token_which_counts() -> None:
    model, params = build(TINY)
    got = run(model, params, samples=16)
    ended = 0
    for tokens, size, truncated in zip(
        got.tokens, got.lengths, got.truncated, strict=True
    ):
        row, size = np.asarray(tokens), int(size)
        ends = np.flatnonzero(np.isin(row, SETTINGS.eos_token_ids))
        assert size == (ends[0] + 1 if ends.size else SIZE)
        assert bool(truncated) == (ends.size == 0)
        assert not row[size:].any()
        ended += ends.size
    assert 0 < ended < 16 * PROMPTS
    assert {int(t) for t in np.asarray(got.tokens).ravel()} >= set(
        SETTINGS.eos_token_ids
    )


def test_an_end_on_the_last_column_is_not_truncated() -> None:
    model, params = build(TINY)
    free = run(model, params, replace(SETTINGS, eos_token_ids=()))
    assert np.asarray(free.truncated).all()
    assert (np.asarray(free.lengths) == SIZE).all()
    row = next(r for r in np.asarray(free.tokens) if r[-1] not in r[:-1])
    got = run(model, params, replace(SETTINGS, eos_token_ids=(int(row[-1]),)))
    same = np.flatnonzero((np.asarray(got.tokens) == row).all(axis=1))
    assert same.size == 1
    assert int(got.lengths[same[0]]) == SIZE
    assert not bool(got.truncated[same[0]])


def test_responses_follow_the_prompt_and_not_its_place() -> None:
    model, params = build(TINY)
    whole = run(model, params)
    parts = run(model, params, ids=(12, 10))
    for place, prompt in ((0, 2), (1, 0)):
        got, wanted = (
            jax.tree.map(lambda x, at=at: x[at * SAMPLES : (at + 1) * SAMPLES], batch)
            for at, batch in ((place, parts), (prompt, whole))
        )
        np.testing.assert_array_equal(got.tokens, wanted.tokens)
        np.testing.assert_array_equal(got.lengths, wanted.lengths)
        np.testing.assert_allclose(got.logprobs, wanted.logprobs, atol=1e-5)


def test_stages_of_the_cache_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = build(TINY)
    one = run(model, params)
    cached_sampler.cache_clear()
    monkeypatch.setattr("jaxrl_reason.sampler.sample_loop.SHORTEST_STAGE", 8)
    monkeypatch.setattr("jaxrl_reason.sampler.sample_loop.STAGES", 3)
    two = run(model, params)
    cached_sampler.cache_clear()
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-6)


@pytest.mark.parametrize(("eos_token_ids", "steps"), [(tuple(range(37)), 0), ((), 11)])
def test_decoding_stops_when_all_responses_ended(
    eos_token_ids: tuple[int, ...], steps: int
) -> None:
    _, params = build(TINY)
    calls = []

    def constrain(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        if x.shape[:2] == (PROMPTS * SAMPLES, 1) and axes[-1] == "mlp":
            jax.debug.callback(lambda: calls.append(1))
        return x

    model = Transformer(TINY, constrain=constrain)
    got = run(model, params, replace(SETTINGS, eos_token_ids=eos_token_ids))
    jax.block_until_ready(got)
    jax.effects_barrier()
    # Once in each layer of a step.
    assert len(calls) == steps * TINY.num_layers
    assert (np.asarray(got.lengths) == steps + 1).all()


def test_a_single_token_needs_no_step() -> None:
    model, params = build(TINY)
    got = run(model, params, replace(SETTINGS, max_new_tokens=1))
    longer = run(model, params)
    np.testing.assert_array_equal(got.tokens[:, 0], longer.tokens[:, 0])


def test_another_key_gives_other_responses_and_new_parameters_compile_nothing() -> None:
    model, params = build(TINY)
    sampler: Any = make_sampler(model, SETTINGS, SAMPLES)
    prompts, ids = tokens_of(PROMPTS, WIDTH), jnp.arange(PROMPTS)
    first = sampler(params, prompts, LENGTHS, sampling_keys(0, 1, ids, SAMPLES))
    compiled = sampler.program._cache_size()
    other = sampler(params, prompts, LENGTHS, sampling_keys(0, 2, ids, SAMPLES))
    assert not np.array_equal(first.tokens, other.tokens)
    moved = jax.tree.map(lambda x: x + 0.01, params)
    sampler(moved, prompts, LENGTHS, sampling_keys(0, 1, ids, SAMPLES))
    assert sampler.program._cache_size() == compiled


def test_sampled_tokens_have_the_filtered_tempered_distribution() -> None:
    count = 100_000
    logits = jnp.array([[1.0, 0.0, 2.0, -1.0, 0.5]])
    settings = SamplingSettings(1, (), temperature=0.5, top_k=3)
    draw: Callable[..., Any] = jax.jit(
        lambda x, k: next_tokens(x, k, jnp.array(0), settings)
    )
    tokens, logprobs = draw(
        jnp.repeat(logits, count, axis=0), jax.random.split(jax.random.key(0), count)
    )
    tempered = np.exp(np.asarray(logits[0]) / 0.5)
    kept = tempered * [1, 0, 1, 0, 1]
    found = np.bincount(tokens, minlength=5) / count
    np.testing.assert_allclose(found, kept / kept.sum(), atol=0.005)
    whole = np.log(tempered / tempered.sum())
    np.testing.assert_allclose(logprobs, whole[np.asarray(tokens)], atol=1e-6)


def test_what_cannot_be_sampled_is_refused() -> None:
    model, params = build(TINY)
    with pytest.raises(ValueError, match=r"context_length \(64\), got 1 \+ 64"):
        make_sampler(model, replace(SETTINGS, max_new_tokens=64), SAMPLES)
    with pytest.raises(ValueError, match=r"context_length \(64\), got 6 \+ 60"):
        run(model, params, replace(SETTINGS, max_new_tokens=60))
    with pytest.raises(ValueError, match=r"below vocab_size \(37\), got \[37\]"):
        make_sampler(model, replace(SETTINGS, eos_token_ids=(1, 37)), SAMPLES)
    with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
        make_sampler(model, SETTINGS, 0)
    keys = sampling_keys(0, 0, jnp.arange(2), SAMPLES)
    with pytest.raises(ValueError, match=r"one per response, \(12,\), got \(8,\)"):
        make_sampler(model, SETTINGS, SAMPLES)(
            params, tokens_of(PROMPTS, WIDTH), LENGTHS, keys
        )


def test_bfloat16_samples_near_the_float32_log_probs() -> None:
    model, params = build(TINY)
    half = Transformer(replace(TINY, dtype="bfloat16"))
    got = run(half, params, replace(SETTINGS, eos_token_ids=()))
    wanted, _ = trainer_logprobs(model, params, got, 1.0)
    assert np.isfinite(np.asarray(got.logprobs)).all()
    assert float(jnp.abs(got.logprobs - wanted).mean()) < 0.1
