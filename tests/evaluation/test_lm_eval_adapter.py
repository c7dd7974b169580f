"""The adapter to lm-eval, with a small random model and a stub of its base class."""

import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.evaluation import lm_eval_adapter
from jaxrl_reason.evaluation.decoding import Response
from jaxrl_reason.evaluation.lm_eval_adapter import (
    as_lm_eval,
    generate_texts,
    split_pair,
    windows,
)
from jaxrl_reason.evaluation.responses import PretrainedModel
from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    abstract_params,
    unembedding,
)

CONFIG = TransformerConfig(
    vocab_size=128,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    context_length=24,
)


class Letters:
    """One token a character; 0 ends."""

    vocab_size, pad_token_id, eos_token_id = 128, 1, 0

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def loaded() -> PretrainedModel:
    model = Transformer(CONFIG)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype),
        abstract_params(model),
    )
    return PretrainedModel(Letters(), model, params, "digest")


@pytest.fixture
def lm(loaded: PretrainedModel, monkeypatch: pytest.MonkeyPatch) -> Any:
    class LM:
        pass

    stub = SimpleNamespace(import_module=lambda name: SimpleNamespace(LM=LM))
    monkeypatch.setattr(lm_eval_adapter, "importlib", stub)
    return as_lm_eval(loaded, batch_size=2)


def asked(*arguments: Any) -> SimpleNamespace:
    return SimpleNamespace(args=arguments)


def reference(loaded: PretrainedModel, row: list[int]) -> np.ndarray:
    """Log-probabilities of all next tokens of a row padded to the model's context."""
    tokens = jnp.asarray([row + [0] * (24 - len(row))])
    positions = jnp.arange(24)[None]
    hidden = loaded.model.apply(
        {"params": loaded.params}, tokens, positions, jnp.ones_like(tokens)
    )
    logits = np.asarray(hidden[0] @ unembedding(loaded.model, loaded.params), float)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_loglikelihood(loaded: PretrainedModel, lm: Any) -> None:
    pairs = [("ab", " cd"), ("ab ", "cd"), ("", "xyz")]
    found = lm.loglikelihood([asked(*pair) for pair in pairs])
    assert found[0] == found[1]  # the space belongs to the continuation
    table = reference(loaded, [ord(x) for x in "ab cd"])
    expected = sum(table[1 + i, ord(x)] for i, x in enumerate(" cd"))
    assert found[0][0] == pytest.approx(expected, rel=1e-5)
    table = reference(loaded, [0, *map(ord, "xyz")])
    expected = sum(table[i, ord(x)] for i, x in enumerate("xyz"))
    assert found[2][0] == pytest.approx(expected, rel=1e-5)
    assert found[2][1] is False


def test_the_likeliest_continuation_is_greedy(loaded: PretrainedModel, lm: Any) -> None:
    best = chr(int(reference(loaded, [ord("a")])[0].argmax()))
    assert lm.loglikelihood([asked("a", best)])[0][1] is True


def test_rolling_scores_every_token_once(loaded: PretrainedModel, lm: Any) -> None:
    text = "".join(chr(97 + i % 26) for i in range(60))
    pieces = windows(loaded, text)
    assert [token for _, scored in pieces for token in scored] == [*map(ord, text)]
    assert all(len(given) + len(scored) <= 25 for given, scored in pieces)
    assert pieces[0][0] == [0]
    assert pieces[1][0] == [ord(text[23])]
    short, whole = "hello", lm.loglikelihood_rolling([asked("hello"), asked(text)])
    assert whole[0] == pytest.approx(lm.loglikelihood([asked("", short)])[0][0])
    assert np.isfinite(whole[1])


def test_a_long_context_is_cut_on_the_left(loaded: PretrainedModel) -> None:
    given, scored = split_pair(loaded, "x" * 50, "ab")
    assert (len(given), len(scored)) == (23, 2)


def test_a_text_that_does_not_fit(lm: Any) -> None:
    with pytest.raises(ValueError, match="at most 25 tokens, got 41"):
        lm.loglikelihood([asked("", "x" * 40)])


def test_completions_end_at_the_first_stop(loaded: PretrainedModel) -> None:
    prompts = []

    def generate_of(limit: int) -> Any:
        def generate(rows: Any, ids: Any, decoding: Any) -> Any:
            prompts.append(rows[0])
            return [[Response([*map(ord, "one. two\nthree"), 0], False)]]

        return generate

    def answer(context: str = "Q", **settings: Any) -> str:
        requests = [(context, {"max_gen_toks": 20, **settings})]
        return generate_texts(loaded, generate_of, requests, 4)[0]

    assert answer() == "one. two\nthree"
    assert answer(until=["\n", "."]) == "one"
    assert answer(until="\n", do_sample=False) == "one. two"
    answer("x" * 50)
    assert len(prompts[-1]) == 4
    with pytest.raises(ValueError, match="generation must be greedy"):
        answer(do_sample=True, temperature=0.5)


def test_completions_are_drawn_together_and_told_in_order(
    loaded: PretrainedModel,
) -> None:
    calls = []

    def generate_of(limit: int) -> Any:
        def generate(rows: Any, ids: Any, decoding: Any) -> Any:
            calls.append((limit, len(rows)))
            return [[Response([row[-1], 0], False)] for row in rows]

        return generate

    requests = [
        (letter, {"max_gen_toks": 8 + i % 2}) for i, letter in enumerate("abcdefg")
    ]
    assert generate_texts(loaded, generate_of, requests, 3) == [*"abcdefg"]
    assert calls == [(8, 3), (8, 1), (9, 3)]


def test_completions_do_not_depend_on_what_is_drawn_beside_them(
    loaded: PretrainedModel, lm: Any
) -> None:
    requests = [asked(text, {"max_gen_toks": 6}) for text in ("ab", "c", "defgh")]
    together = lm.generate_until(requests)
    assert together == [lm.generate_until([each])[0] for each in requests]


def test_without_lm_eval_it_says_what_to_install(
    loaded: PretrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("no", name="lm_eval")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"needs lm_eval: `pip install"):
        as_lm_eval(loaded)


def test_bad_batch_size(loaded: PretrainedModel) -> None:
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        as_lm_eval(loaded, batch_size=0)
