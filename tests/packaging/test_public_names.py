"""The fast tests try every public name; those that no other fast test tries, here."""

import ast
import doctest
import importlib
import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import Counts, batch_counts
from jaxrl_reason.models import (
    Model,
    Params,
    PrefixCache,
    Transformer,
    TransformerConfig,
    ValueModel,
    abstract_params,
    prefill,
    unembedding,
)
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.sampler import (
    BatchSampler,
    BatchSettings,
    Completions,
    OnTokens,
    RolloutEngine,
    Sampler,
    SamplingSettings,
    StopCheck,
    TopLogprobs,
    make_batch_sampler,
    make_sampler,
    sample,
    sampling_keys,
    stop_sequences,
)
from jaxrl_reason.serving import OpenAIEngine, WeightTransport
from jaxrl_reason.sharding import (
    BatchSharding,
    Constrain,
    Constrainer,
    ShardingRules,
    make_mesh,
    no_constraint,
    parts_of,
)
from jaxrl_reason.weights import HFConfig, Pretrained, load_pretrained, read_hf_config
from tests.packaging.modules import PUBLIC_MODULES, PUBLIC_PACKAGES
from tests.serving.engine_helpers import Nowhere, engine_at
from tests.weights.cases import CASES, write_folder

pytestmark = pytest.mark.fast

# Every public name.


def words(tree: ast.AST) -> Iterator[str]:
    """The names that a piece of code mentions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name


def is_fast(node: ast.AST) -> bool:
    return any(
        isinstance(inner, ast.Attribute) and ast.unparse(inner) == "pytest.mark.fast"
        for inner in ast.walk(node)
    )


def tried_by(source: str) -> set[str]:
    """What the fast tests of a file mention; all of a file that is fast as a whole."""
    tree = ast.parse(source)
    functions = [x for x in tree.body if isinstance(x, ast.FunctionDef)]
    marks = [
        x
        for x in tree.body
        if isinstance(x, ast.Assign) and ast.unparse(x.targets[0]) == "pytestmark"
    ]
    if any(map(is_fast, marks)):
        return set(words(tree))
    fast = [f for f in functions if any(map(is_fast, f.decorator_list))]
    return {word for function in fast for word in words(function)}


def has_example(package: Any, name: str) -> bool:
    """Whether an example that is run among the fast tests tries it."""
    value = getattr(package, name)
    if getattr(value, "__module__", "") not in PUBLIC_MODULES:
        return False
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
    return any(name in words(ast.parse(example.source)) for example in examples)


def untried(package: Any, tried: set[str]) -> list[str]:
    names = package.__all__
    return [n for n in names if n not in tried and not has_example(package, n)]


def test_every_public_name_is_tried_by_a_fast_test(root: Path) -> None:
    files = sorted((root / "tests").rglob("test_*.py"))
    tried = {word for file in files for word in tried_by(file.read_text("utf-8"))}
    left = {
        name: untried(importlib.import_module(name), tried) for name in PUBLIC_PACKAGES
    }
    assert {name: names for name, names in left.items() if names} == {}


def test_a_name_that_only_slow_tests_mention_is_not_tried() -> None:
    slow = "def test_one():\n    gae(1)\n"
    assert tried_by(slow) == set()
    assert "gae" in tried_by("@pytest.mark.fast\n" + slow)
    assert "gae" in tried_by("pytestmark = pytest.mark.fast\n" + slow)
    assert "gae" in tried_by("pytestmark = [pytest.mark.fast]\n" + slow)


# What no other fast test tries.

MODEL: Model = Transformer(
    TransformerConfig(
        vocab_size=13,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_dim=8,
        context_length=16,
    )
)
TOKENS, LENGTHS = jnp.array([[5, 6, 7], [8, 9, 0]]), jnp.array([3, 2])
SETTINGS = SamplingSettings(max_new_tokens=4, eos_token_ids=(1,))


def drawn_params() -> Params:
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape).astype(x.dtype))  # noqa: E731
    return jax.tree.map(draw, abstract_params(MODEL))


def test_a_prompt_is_read_into_a_cache() -> None:
    params = drawn_params()
    hidden, cache = jax.jit(prefill, static_argnums=0)(MODEL, params, TOKENS, LENGTHS)
    assert isinstance(cache, PrefixCache)
    assert (hidden @ unembedding(MODEL, params)).shape == (2, 13)
    assert abstract_params(ValueModel(MODEL.config))["value_head"].shape == (8,)


def test_samplers_draw_the_same_tokens() -> None:
    params, keys = drawn_params(), sampling_keys(0, 0, jnp.arange(2), 2)
    plain: Sampler = make_sampler(MODEL, SETTINGS, 2)
    wanted = plain(params, TOKENS, LENGTHS, keys)
    assert isinstance(wanted, Completions)
    shapes = jax.eval_shape(
        partial(sample, MODEL, settings=SETTINGS, num_samples=2),
        *(params, TOKENS, LENGTHS, keys),
    )
    assert shapes.tokens.shape == wanted.tokens.shape == (4, 4)
    batch = BatchSettings(slots=4, prompt_widths=(3,), top_logprobs=2)
    made = make_batch_sampler(MODEL, SETTINGS, 2, batch)
    assert isinstance(made, BatchSampler)
    assert not isinstance(made, RolloutEngine)
    told = []
    listen: OnTokens = lambda row, tokens, ended: told.append(row)  # noqa: E731
    never: StopCheck = stop_sequences([[12, 12, 12, 12]])
    got = made(params, TOKENS, LENGTHS, keys, on_tokens=listen, stops=[never])
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    np.testing.assert_allclose(got.logprobs, wanted.logprobs, atol=1e-5)
    assert isinstance(got.top_logprobs, TopLogprobs)
    assert set(told) == {0, 1, 2, 3}


def test_an_engine_has_a_way_for_weights() -> None:
    transport: WeightTransport = Nowhere()
    engine = engine_at("http://localhost:1", transport)
    assert isinstance(engine, OpenAIEngine)
    assert isinstance(engine, RolloutEngine)


def test_a_folder_of_weights_is_read(tmp_path: Path) -> None:
    loaded: Pretrained = load_pretrained(write_folder("llama3", tmp_path))
    said: HFConfig = read_hf_config(CASES["llama3"], tmp_path / "config.json")
    assert said.model.vocab_size == loaded.config.vocab_size


def test_batches_go_where_the_rules_say() -> None:
    mesh, rules = make_mesh(), ShardingRules()
    placed = BatchSharding(mesh, rules).put_batch(np.ones((2, 3)))
    assert placed.sharding.spec == rules.spec(("batch",))
    constrain: Constrain = Constrainer(mesh, rules)
    assert parts_of(constrain, "vocab") == parts_of(no_constraint, "vocab") == 1


def test_counts_and_recipes() -> None:
    counts: Counts = batch_counts(jnp.ones((2, 3)))
    assert float(counts.tokens) == 6
    assert all(recipe.name == name for name, recipe in RECIPES.items())
