"""A model, prompts and settings small enough to draw in every way."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.sampler import (
    BatchSettings,
    Completions,
    SamplingSettings,
    sampling_keys,
)
from tests.models.numpy_transformer import TINY, tokens_of

PROMPTS, SAMPLES, WIDTH, SIZE = 5, 4, 6, 12
LENGTHS = np.array([6, 2, 4, 1, 5])
TOKENS = np.asarray(tokens_of(PROMPTS, WIDTH))
# One layer compiles quickest; the test of the variants has more.
SMALL = replace(TINY, num_layers=1)
SETTINGS = SamplingSettings(max_new_tokens=SIZE, eos_token_ids=(3, 11))
# Samplers must draw the same tokens whatever the rounding: of these draws none lies
# nearer than 5e-5 to where another token would come out, and rounding moves that by
# 1e-6 at most.
KEYS = sampling_keys(0, 1, jnp.arange(PROMPTS), SAMPLES)
BATCH = BatchSettings(slots=4, prompt_widths=(2, 6), steps=5)
CHANGING = replace(
    BATCH,
    slots=24,
    slots_per_group=3,
    shrink_to=(12, 6, 3),
    cache_lengths=(4, 7),
    cache_block=0,
)


def check_same(got: Completions, wanted: Completions) -> None:
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_array_equal(got.lengths, wanted.lengths)
    np.testing.assert_array_equal(got.truncated, wanted.truncated)
    np.testing.assert_allclose(got.logprobs, wanted.logprobs, atol=1e-5)
