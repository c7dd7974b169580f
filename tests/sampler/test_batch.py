"""The batch sampler draws what the plain sampler draws, however it is cut."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.sampler import (
    BatchSettings,
    Completions,
    SamplingSettings,
    make_batch_sampler,
    make_sampler,
    sampling_keys,
    stop_strings,
)
from tests.models.reference import TINY, VARIANTS, build, tokens_of

PROMPTS, SAMPLES, WIDTH, SIZE = 5, 4, 6, 12
LENGTHS = np.array([6, 2, 4, 1, 5])
TOKENS = np.asarray(tokens_of(PROMPTS, WIDTH))
SETTINGS = SamplingSettings(max_new_tokens=SIZE, end_tokens=(3, 11))
KEYS = sampling_keys(0, 1, jnp.arange(PROMPTS), SAMPLES)
BATCH = BatchSettings(slots=4, prompt_widths=(2, 6), steps=5)


@functools.cache
def plain(name: str = "tiny", settings: SamplingSettings = SETTINGS) -> Any:
    model, params = build(VARIANTS[name] if name != "tiny" else TINY)
    got = make_sampler(model, settings, SAMPLES)(params, TOKENS, LENGTHS, KEYS)
    return jax.device_get(got)


@functools.cache
def sampler(batch: BatchSettings = BATCH, settings: SamplingSettings = SETTINGS) -> Any:
    return make_batch_sampler(build(TINY)[0], settings, SAMPLES, batch)


def run(batch: BatchSettings = BATCH, **options: Any) -> Completions:
    return sampler(batch)(build(TINY)[1], TOKENS, LENGTHS, KEYS, **options)


def check_same(got: Completions, wanted: Completions) -> None:
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_array_equal(got.lengths, wanted.lengths)
    np.testing.assert_array_equal(got.truncated, wanted.truncated)
    np.testing.assert_allclose(got.logprobs, wanted.logprobs, atol=1e-5)


@pytest.mark.parametrize(
    "batch",
    [
        BATCH,
        replace(BATCH, slots=1, steps=100),
        replace(BATCH, slots=4, lane_width=2, refill_share=0.5),
        replace(BATCH, slots=24, lane_width=3, prompt_widths=(8,)),
    ],
)
def test_slots_lanes_and_widths_change_nothing(batch: BatchSettings) -> None:
    check_same(run(batch), plain())


def test_every_variant_of_the_model_is_sampled() -> None:
    settings = replace(SETTINGS, temperature=0.6, top_p=0.9)
    model, params = build(VARIANTS["everything"])
    got = make_batch_sampler(model, settings, SAMPLES, BATCH)(
        params, TOKENS, LENGTHS, KEYS
    )
    check_same(got, plain("everything", settings))
