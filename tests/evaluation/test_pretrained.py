"""The joint to a real model, with a small random one."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.evaluation import pretrained
from jaxrl_reason.evaluation.decoding import Decoding, Generate
from jaxrl_reason.evaluation.pretrained import (
    PretrainedModel,
    load_model,
    make_generate,
    model_digest,
    pad_prompts,
)
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


def test_prompts_are_padded_to_few_widths() -> None:
    tokens, lengths = pad_prompts([[1] * 70, [2]], [0, 1], 100)
    assert tokens.shape == (2, 100)
    assert lengths.tolist() == [70, 1]
    assert tokens.sum(axis=1).tolist() == [70, 2]


@pytest.mark.parametrize(("length", "problem_id"), [(0, 4), (101, 5)])
def test_a_prompt_that_does_not_fit_is_named(length: int, problem_id: int) -> None:
    said = f"must have 1 to 100 tokens .*, got {length} for problem {problem_id}"
    with pytest.raises(ValueError, match=said):
        pad_prompts([[1] * length], [problem_id], 100)


def test_the_digest_tells_models_apart(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(3 * 2**20))
    first = model_digest(folder)
    assert model_digest(folder) == first
    weights.write_bytes(bytes(3 * 2**20 - 1) + b"x")
    assert model_digest(folder) != first
    weights.write_bytes(bytes(3 * 2**20 + 1))
    assert model_digest(folder) != first
    assert model_digest(weights) != model_digest(folder)


def test_a_path_becomes_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(b"x")

    def load_pretrained(path: str, *, dtype: str) -> Any:
        return SimpleNamespace(path=Path(path), config=CONFIG, params=dtype)

    modules = {
        "jaxrl_reason.weights": SimpleNamespace(load_pretrained=load_pretrained),
        "jaxrl_reason.text.load": SimpleNamespace(
            load_tokenizer=lambda path, vocab_size: (path, vocab_size)
        ),
    }
    monkeypatch.setattr(
        pretrained, "importlib", SimpleNamespace(import_module=modules.__getitem__)
    )
    loaded = load_model(str(tmp_path), dtype="bfloat16")
    assert loaded.tokenizer == (tmp_path, 32)  # type: ignore[comparison-overlap]
    assert loaded.params == "bfloat16"
    assert loaded.digest == model_digest(tmp_path)


def test_an_installation_that_reads_no_models_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"needs jaxrl_reason\.weights, which"):
        load_model("x")
