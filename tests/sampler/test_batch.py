"""The batch sampler draws what the plain sampler draws, however it is split."""

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_reason.sampler import (
    BatchSettings,
    Completions,
    SamplingSettings,
    make_batch_sampler,
    make_sampler,
    stop_sequences,
    stop_strings,
)
from tests.models.numpy_transformer import VARIANTS, build
from tests.sampler.small import (
    BATCH,
    CHANGING,
    KEYS,
    LENGTHS,
    PROMPTS,
    SAMPLES,
    SETTINGS,
    SIZE,
    SMALL,
    TOKENS,
    WIDTH,
    check_same,
)


@functools.cache
def plain(name: str = "", settings: SamplingSettings = SETTINGS) -> Any:
    model, params = build(VARIANTS[name] if name else SMALL)
    got = make_sampler(model, settings, SAMPLES)(params, TOKENS, LENGTHS, KEYS)
    return jax.device_get(got)


@functools.cache
def sampler(batch: BatchSettings = BATCH, settings: SamplingSettings = SETTINGS) -> Any:
    return make_batch_sampler(build(SMALL)[0], settings, SAMPLES, batch)


def run(batch: BatchSettings = BATCH, **options: Any) -> Completions:
    return sampler(batch)(build(SMALL)[1], TOKENS, LENGTHS, KEYS, **options)


@pytest.mark.parametrize("make", [make_sampler, make_batch_sampler])
def test_prompts_that_no_model_reads_are_refused(make: Any) -> None:
    model, params = build(SMALL)
    draw = make(model, SETTINGS, SAMPLES, *[BATCH][: make is make_batch_sampler])
    for where, index in (((0, 0), SMALL.vocab_size), ((1, 0), -1)):
        tokens = np.array(TOKENS)
        tokens[where] = index
        with pytest.raises(ValueError, match=rf"below vocab_size .* got \[{index}\]"):
            draw(params, tokens, LENGTHS, KEYS)
    for length in (0, WIDTH + 1):
        lengths = np.array([length, *LENGTHS[1:]])
        with pytest.raises(ValueError, match=rf"from 1 to {WIDTH}, .* got \[{length}"):
            draw(params, TOKENS, lengths, KEYS)
    # What follows a prompt is no part of it.
    padded = np.where(np.arange(WIDTH) < np.array(LENGTHS)[:, None], TOKENS, -100)
    check_same(draw(params, padded, LENGTHS, KEYS), plain())


@pytest.mark.parametrize(
    "batch",
    [
        BATCH,
        replace(BATCH, slots=1, steps=100),
        replace(BATCH, slots=4, slots_per_group=2, refill_fraction=0.5),
        CHANGING,
        replace(CHANGING, slots_per_group=1, cache_block=4),
    ],
)
def test_slots_groups_and_widths_change_nothing(batch: BatchSettings) -> None:
    check_same(run(batch), plain())


@pytest.mark.parametrize("name", ["everything", "windows"])
def test_variants_of_the_model_are_sampled(name: str) -> None:
    settings = replace(SETTINGS, temperature=0.6, top_p=0.9)
    model, params = build(VARIANTS[name])
    got = make_batch_sampler(model, settings, SAMPLES, BATCH)(
        params, TOKENS, LENGTHS, KEYS
    )
    check_same(got, plain(name, settings))


def test_fewer_slots_and_longer_caches_take_part_in_the_test_above() -> None:
    """The last setting there is worth nothing if nothing shrinks or grows."""
    made = sampler(replace(CHANGING, prompt_widths=(8,)))
    sizes: dict[str, set[tuple[int, ...]]] = {"shrink": set(), "widen": set()}

    def counted(name: str) -> Any:
        program = getattr(made._programs, name)

        def call(state: Any, *arguments: Any, **named: Any) -> Any:
            state = program(state, *arguments, **named)
            sizes[name].add((state.active.shape[0], state.cache_length))
            return state

        return call

    made._programs = replace(made._programs, **{x: counted(x) for x in sizes})
    made(build(SMALL)[1], TOKENS, LENGTHS, KEYS)
    assert len(sizes["shrink"]) >= 2
    assert len(sizes["widen"]) >= 2


def test_after_a_warm_up_nothing_is_compiled() -> None:
    batch = replace(BATCH, shrink_to=(2,), cache_lengths=(8,), cache_block=0)
    batch_sampler = make_batch_sampler(build(SMALL)[0], SETTINGS, SAMPLES, batch)
    params = build(SMALL)[1]
    batch_sampler.warm_up(params, KEYS)
    jitted = [f for f in vars(batch_sampler._programs).values()]
    jitted += [batch_sampler._reader.prefill]
    before = [f._cache_size() for f in jitted]
    got = batch_sampler(params, TOKENS, LENGTHS, KEYS)
    assert [f._cache_size() for f in jitted] == before
    check_same(got, plain())
    moved = jax.tree.map(lambda x: x + 0.01, params)
    other = batch_sampler(moved, TOKENS[:3], LENGTHS[:3], KEYS[: 3 * SAMPLES])
    assert [f._cache_size() for f in jitted] == before
    assert not np.array_equal(other.tokens, got.tokens[: 3 * SAMPLES])


def test_prefills_share_prompts_evenly_and_keep_their_shape() -> None:
    made = make_batch_sampler(build(SMALL)[0], SETTINGS, SAMPLES, BATCH)
    params = build(SMALL)[1]
    made(params, TOKENS, LENGTHS, KEYS)
    rows = made._reader.rows(WIDTH)
    assert rows == 3  # five prompts by at most four: three and two
    compiled = made._reader.prefill._cache_size()
    got = made(params, TOKENS[:2], LENGTHS[:2], KEYS[: 2 * SAMPLES])
    assert made._reader.rows(WIDTH) == rows
    assert made._reader.prefill._cache_size() == compiled
    np.testing.assert_array_equal(got.tokens, plain().tokens[: 2 * SAMPLES])


def test_tokens_are_told_in_order_and_once() -> None:
    told: dict[int, list[int]] = {}
    done: list[int] = []

    def on_tokens(row: int, tokens: tuple[int, ...], ended: bool) -> None:
        assert row not in done
        assert len(tokens) <= BATCH.steps
        told.setdefault(row, []).extend(tokens)
        if ended:
            done.append(row)

    got = run(on_tokens=on_tokens)
    check_same(got, plain())
    assert sorted(done) == list(range(PROMPTS * SAMPLES))
    for row, tokens in told.items():
        assert tokens == got.tokens[row, : got.lengths[row]].tolist()


def letters(tokens: Any) -> str:
    return "".join(chr(ord("A") + token) for token in tokens)


def stopped_at(tokens: list[int], size: int, ends: list[list[int]]) -> int:
    """The length at which one of `ends` is complete, else `size`."""
    sizes = range(1, size + 1)
    found = (n for n in sizes if any(tokens[:n][-len(end) :] == end for end in ends))
    return next(found, size)


@pytest.mark.parametrize("how", ["strings", "sequences"])
def test_stops_cut_the_plain_sampler_s_responses(how: str) -> None:
    wanted = plain()
    row = next(r for r in range(20) if wanted.lengths[r] > 5)
    ends = [wanted.tokens[row, 2:4].tolist(), wanted.tokens[row, 4:5].tolist()]
    texts = [letters(end) for end in ends]
    check = stop_strings(letters, texts) if how == "strings" else stop_sequences(ends)
    got = run(stops=[check])
    stopped = 0
    for row, tokens in enumerate(wanted.tokens.tolist()):
        size = int(wanted.lengths[row])
        at = stopped_at(tokens, size, ends)
        assert got.lengths[row] == at
        assert got.tokens[row].tolist() == tokens[:at] + [0] * (SIZE - at)
        assert not got.logprobs[row, at:].any()
        complete = any(tokens[:at][-len(end) :] == end for end in ends)
        assert got.truncated[row] == (wanted.truncated[row] and not complete)
        stopped += at < size
    assert stopped > 1


def test_greedy_bias_and_bans_are_the_plain_sampler_s() -> None:
    settings = replace(SETTINGS, temperature=0.0, logit_bias=((5, 0.1), (7, -1.0)))
    free = plain(settings=replace(SETTINGS, temperature=0.0))
    often = int(np.bincount(free.tokens[free.tokens > 0]).argmax())
    settings = replace(settings, banned_tokens=(often,))
    batch = replace(BATCH, top_logprobs=3)
    got = sampler(batch, settings)(build(SMALL)[1], TOKENS, LENGTHS, KEYS)
    check_same(got, plain(settings=settings))
    drawn = np.arange(SIZE) < got.lengths[:, None]
    assert not (got.tokens[drawn] == often).any()
    # The top log-probs are the model's own, so they know nothing of bias and bans.
    best = got.top_logprobs
    assert (np.diff(best.logprobs[drawn], axis=-1) <= 0).all()
    same = best.tokens[drawn] == got.tokens[drawn][:, None]
    np.testing.assert_allclose(
        np.where(same, best.logprobs[drawn], 0).sum(-1),
        np.where(same.any(-1), got.logprobs[drawn], 0),
        atol=1e-6,
    )
    assert same.any()
    assert not same[:, 0].all()
    assert not best.tokens[~drawn].any()


# How far a log-prob may move: bfloat16 keeps 8 bits of a key, int8 rounds to 1/254 of a
# head's largest number.
@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 0.02), ("int8", 0.02)])
def test_narrow_caches_are_near(dtype: str, limit: float) -> None:
    wanted, got = plain(), run(replace(BATCH, cache_dtype=dtype))
    same = (got.tokens == wanted.tokens).all(axis=1)
    assert same.mean() > 0.7
    moved = np.abs(got.logprobs - wanted.logprobs)[same]
    assert 0 < moved.max() < limit


def test_what_does_not_fit_is_refused() -> None:
    params = build(SMALL)[1]
    with pytest.raises(ValueError, match=r"from 1 to 6, .* got \[7\]"):
        sampler()(params, np.zeros((1, 8), int), np.array([7]), KEYS[:SAMPLES])
    with pytest.raises(ValueError, match=r"one per response, \(20,\), got \(4,\)"):
        sampler()(params, TOKENS, LENGTHS, KEYS[:4])
    with pytest.raises(ValueError, match="stop strings must not be empty"):
        stop_strings(letters, [""])
    with pytest.raises(ValueError, match="stop sequences must not be empty"):
        stop_sequences([[1], []])
    for name, value, rule in (
        ("slots", 0, "slots must be >= 1, got 0"),
        ("slots_per_group", 3, r"must divide slots \(4\), got 3"),
        ("prompt_widths", (), "ascending numbers >= 1"),
        ("shrink_to", (4,), "descending multiples"),
        ("cache_lengths", (8, 8), "cache_lengths must be ascending"),
        ("refill_fraction", 1.0, "below 1, got 1.0"),
        ("cache_dtype", "int4", "got 'int4'"),
        ("top_logprobs", -1, "top_logprobs must be >= 0"),
        ("cache_block", -1, "cache_block must be >= 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            replace(BATCH, **{name: value})
    for name, value in (("banned_tokens", (37,)), ("logit_bias", ((37, 1.0),))):
        with pytest.raises(ValueError, match=r"below vocab_size \(37\), got \[37\]"):
            make_batch_sampler(
                build(SMALL)[0], replace(SETTINGS, **{name: value}), SAMPLES, BATCH
            )
