"""The joint to a real model, with a small random one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.evaluation.decoding import Decoding, Generate
from jaxrl_reason.evaluation.responses import PretrainedModel, make_generate
from jaxrl_reason.models import Transformer, TransformerConfig, abstract_params
from jaxrl_reason.text.symbols import SymbolTokenizer

CONFIG = TransformerConfig(
    vocab_size=32,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    context_length=80,
)
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(scope="module")
def generate() -> Generate:
    model = Transformer(CONFIG)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype),
        abstract_params(model),
    )
    loaded = PretrainedModel(SymbolTokenizer(3), model, params, "digest")
    return make_generate(loaded, (1,), max_new_tokens=6, batch_size=4, seed=0)


def tokens_of(rows: Sequence[Sequence[Any]]) -> list[list[list[int]]]:
    return [[list(response.tokens) for response in row] for row in rows]


def test_a_question_gets_the_same_samples_in_any_batch(generate: Generate) -> None:
    decoding = Decoding(2, 1.0)
    both = tokens_of(generate(PROMPTS[:2], [7, 3], decoding))
    alone = tokens_of(generate(PROMPTS[1:2], [3], decoding))
    assert both[1:] == alone
    assert both[0][0] != both[0][1]
    assert [len(row) for row in both] == [2, 2]


def test_more_questions_than_slots_are_asked_at_once(generate: Generate) -> None:
    ids = list(range(9))
    prompts = [PROMPTS[i % 3] for i in ids]
    got = tokens_of(generate(prompts, ids, Decoding(2, 1.0)))
    for problem_id in (0, 8):
        alone = generate([prompts[problem_id]], [problem_id], Decoding(2, 1.0))
        assert tokens_of(alone) == [got[problem_id]]


def test_responses_end_with_an_end_token_or_are_truncated(generate: Generate) -> None:
    for row in generate(PROMPTS[:2], [0, 1], Decoding(2, 1.0)):
        for response in row:
            assert 1 <= len(response.tokens) <= 6
            assert response.truncated == (response.tokens[-1] != 1)
