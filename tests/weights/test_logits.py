"""Logits equal those of transformers, and every feature of a family is seen to act."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import Transformer, TransformerConfig, prefill, unembedding
from jaxrl_reason.models.decode_step import ResponseCache, decode_step
from jaxrl_reason.models.params import decode_logits, decode_params
from jaxrl_reason.weights import Pretrained, load_pretrained
from tests.weights.cases import CASES, REFERENCES, TOKENS, tokens_of, write_folder

TOLERANCE = 1e-4  # float32, the largest difference of any logit


@functools.cache
def references() -> Any:
    with np.load(REFERENCES / "logits.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def loaded(case: str) -> Pretrained:
        return load_pretrained(write_folder(case, tmp_path_factory.mktemp(case)))

    return loaded


def logits_of(config: TransformerConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """[S, V] of one sequence."""

    @jax.jit
    def run(params: Any, tokens: jax.Array) -> jax.Array:
        model = Transformer(config)
        positions = jnp.arange(tokens.shape[1])[None]
        ones = jnp.ones_like(tokens)
        hidden = model.apply({"params": params}, tokens, positions, ones)
        return hidden[0] @ unembedding(model, params)

    return np.asarray(run(params, jnp.asarray(tokens)))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, load: Any) -> None:
    model = load(case)
    got = logits_of(model.config, model.params, tokens_of(case))
    difference = np.abs(got - references()[case]).max()
    assert difference < TOLERANCE


# Settings of which a loader that passes over a field of config.json would be left with.
FORGOTTEN = [
    ("llama3", {"rope_scaling": None}),
    ("llama3", {"rope_theta": 10000.0}),
    ("llama_linear_biases", {"rope_scaling": None}),
    ("mistral_window", {"sliding_window": None}),
    ("mistral_window", {"sliding_window": 8}),
    ("qwen2_yarn", {"rope_scaling": None}),
    ("qwen2_window", {"full_attention_layers": ()}),
    ("qwen3_everything", {"full_attention_layers": (0,)}),
    ("smollm2", {"norm_eps": 1e-2}),
]


@pytest.mark.parametrize(("case", "change"), FORGOTTEN)
def test_a_forgotten_field_is_seen(case: str, change: Any, load: Any) -> None:
    model = load(case)
    config = replace(model.config, **change)
    got = logits_of(config, model.params, tokens_of(case))
    assert np.abs(got - references()[case]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", ["mistral_window", "qwen3_everything"])
def test_prefill_and_decode_give_the_same_logits(case: str, load: Any) -> None:
    """Windows and scaled positions hold where the prompt's cache is shared."""
    loaded, start = load(case), 10
    model, tokens = Transformer(loaded.config), jnp.asarray(tokens_of(case))

    @jax.jit
    def run(params: Any, tokens: jax.Array) -> jax.Array:
        # Padding after the prompt, and two samples of it with the same tokens.
        prompt = jnp.pad(tokens[:, :start], ((0, 0), (0, 3)))
        lengths = jnp.array([start])
        hidden, prefix = prefill(model, params, prompt, lengths)
        decoding = decode_params(model, params, lengths, TOKENS - start)

        def step(cache: Any, column: jax.Array) -> tuple[Any, jax.Array]:
            token = jnp.broadcast_to(tokens[0, start + column], (2,))
            hidden, cache = decode_step(model, decoding, token, column, prefix, cache)
            return cache, decode_logits(model, decoding, hidden)

        empty = jax.tree.map(
            lambda x: jnp.zeros((2, x.shape[1], TOKENS - start, x.shape[3]), x.dtype),
            (prefix.keys, prefix.values),
        )
        cache = ResponseCache(*empty)
        _, rest = jax.lax.scan(step, cache, jnp.arange(TOKENS - start))
        first = jnp.repeat(decode_logits(model, decoding, hidden)[None], 2, axis=1)
        return jnp.concatenate([first, rest])

    got = run(loaded.params, tokens)
    wanted = references()[case][start - 1 :]
    for sample in range(2):
        assert np.abs(np.asarray(got[:, sample]) - wanted).max() < TOLERANCE


def test_references_are_small() -> None:
    assert sum(Path(file).stat().st_size for file in REFERENCES.iterdir()) < 1.5e6
