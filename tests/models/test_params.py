from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    ValueModel,
    abstract_params,
    init_params,
    param_axes,
    unembedding,
)
from jaxrl_reason.sharding import ShardingRules
from tests.models.numpy_transformer import TINY, VARIANTS


def with_paths(tree: Any) -> Iterator[tuple[str, Any]]:
    is_axes = lambda x: isinstance(x, tuple)  # noqa: E731
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_axes):
        yield jax.tree_util.keystr(path), leaf


@pytest.mark.parametrize("kind", [Transformer, ValueModel])
@pytest.mark.parametrize("name", ["grouped", "everything"])
def test_values_shapes_and_axes_come_from_one_declaration(kind: Any, name: str) -> None:
    model = kind(VARIANTS[name])
    params = dict(with_paths(init_params(model, jax.random.key(0))))
    abstract = dict(with_paths(abstract_params(model)))
    axes = dict(with_paths(param_axes(model)))
    assert params.keys() == abstract.keys() == axes.keys()
    known = {field for field in ShardingRules.__dataclass_fields__}
    for path, value in params.items():
        assert isinstance(value, jax.Array)
        assert (value.shape, value.dtype) == (
            abstract[path].shape,
            abstract[path].dtype,
        )
        assert len(axes[path]) == value.ndim
        assert set(axes[path]) <= known | {None}
        assert ("layers" in axes[path]) == ("'layers'" in path)


@pytest.mark.fast
def test_axes_stand_for_the_sizes_they_name() -> None:
    c = VARIANTS["everything"]
    c = replace(c, num_heads=6, num_kv_heads=3, num_layers=5)
    sizes = {
        "vocab": c.vocab_size,
        "embed": c.hidden_size,
        "layers": 5,
        "heads": 6,
        "kv_heads": 3,
        "head_dim": c.head_dim,
        "mlp": c.mlp_dim,
    }
    shapes = dict(with_paths(abstract_params(Transformer(c))))
    for path, axes in with_paths(param_axes(Transformer(c))):
        for axis, size in zip(axes, shapes[path].shape, strict=True):
            assert axis is None or sizes[axis] == size, path


@pytest.mark.fast
def test_parameter_count_is_the_formula() -> None:
    c = VARIANTS["everything"]
    attention = (2 * c.num_heads + 2 * c.num_kv_heads) * c.head_dim * c.hidden_size
    biases = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
    norms = 2 * c.hidden_size + 2 * c.head_dim
    layer = attention + biases + norms + 3 * c.hidden_size * c.mlp_dim
    wanted = c.num_layers * layer + 2 * c.vocab_size * c.hidden_size + c.hidden_size
    params = abstract_params(Transformer(c))
    assert sum(x.size for x in jax.tree.leaves(params)) == wanted


def test_init_is_the_key_s_and_every_layer_s_own() -> None:
    model = Transformer(TINY)
    first, again = (init_params(model, jax.random.key(3)) for _ in range(2))
    other = init_params(model, jax.random.key(4))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, first, again)))
    assert not np.array_equal(first["embedding"], other["embedding"])
    up = first["layers"]["mlp"]["up"]
    assert not np.array_equal(up[0], up[1])
    assert float(jnp.std(up)) == pytest.approx(TINY.hidden_size**-0.5, rel=0.1)


def test_param_dtype_is_the_kept_type_and_dtype_the_compute_type() -> None:
    model = Transformer(replace(TINY, param_dtype="bfloat16", dtype="float32"))
    params = init_params(model, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert unembedding(model, params).dtype == jnp.float32


def test_unembedding_is_the_embedding_transposed_or_the_head() -> None:
    tied, untied = (
        Transformer(replace(TINY, tie_embeddings=tie)) for tie in (True, False)
    )
    params = init_params(tied, jax.random.key(0))
    assert "head" not in params
    np.testing.assert_array_equal(unembedding(tied, params), params["embedding"].T)
    params = init_params(untied, jax.random.key(0))
    np.testing.assert_array_equal(unembedding(untied, params), params["head"])


def test_value_model_shares_the_backbone_and_starts_at_zero() -> None:
    config: TransformerConfig = replace(TINY, tie_embeddings=False)
    model = ValueModel(config)
    params = init_params(model, jax.random.key(0))
    assert "head" not in params["backbone"]
    policy = init_params(Transformer(TINY), jax.random.key(1))
    params["backbone"] = policy
    tokens = jnp.zeros((2, 3), int)
    batch = (tokens, tokens, tokens + 1)
    values = model.apply({"params": params}, *batch)
    assert (values.shape, values.dtype) == ((2, 3), jnp.float32)
    np.testing.assert_array_equal(values, 0)
    head = jnp.arange(TINY.hidden_size, dtype=jnp.float32)
    values = model.apply({"params": {**params, "value_head": head}}, *batch)
    hidden = Transformer(TINY).apply({"params": policy}, *batch)
    np.testing.assert_allclose(values, hidden @ head, rtol=1e-5)
