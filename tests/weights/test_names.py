"""The table of names, and how an array lies in a tensor."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import Transformer
from jaxrl_reason.weights import names
from jaxrl_reason.weights.layouts import Layout, by_path, layouts_of, nested
from tests.models.numpy_transformer import VARIANTS

EVERYTHING = Transformer(VARIANTS["everything"])


def layout_of(path: str) -> Layout:
    return next(x for x in layouts_of(EVERYTHING) if x.row.ours == path)


def test_every_declared_array_has_one_row() -> None:
    ours, theirs, gguf = (
        [getattr(row, name) for row in names.TABLE]
        for name in ("ours", "hugging_face", "gguf")
    )
    for column in (ours, theirs, gguf):
        assert len(set(column)) == len(column)
    assert {x.row.ours for x in layouts_of(EVERYTHING)} == set(ours) - {
        "layers/attention/output_bias"
    }


def test_an_array_without_a_row_or_with_other_axes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = names.ROWS["head"]
    monkeypatch.delitem(names.ROWS, "head")
    with pytest.raises(ValueError, match="need a row in the table, got"):
        layouts_of(EVERYTHING)
    wrong = names.Row(row.ours, row.hugging_face, row.gguf, "vocab mlp")
    monkeypatch.setitem(names.ROWS, "head", wrong)
    with pytest.raises(ValueError, match="head must have the axes 'vocab mlp'"):
        layouts_of(EVERYTHING)


def test_a_projection_is_the_transposed_matrix_with_heads_merged() -> None:
    layout = layout_of("layers/attention/query")
    _, width, heads, head_dim = layout.shape
    assert layout.tensor_shape == (heads * head_dim, width)
    array = np.arange(width * heads * head_dim).reshape(width, heads, head_dim)
    np.testing.assert_array_equal(
        layout.to_tensor(array), array.reshape(width, heads * head_dim).T
    )


@pytest.mark.parametrize("path", [row.ours for row in names.TABLE])
def test_any_part_of_an_array_is_read_from_its_part_of_the_tensor(path: str) -> None:
    if path == "layers/attention/output_bias":
        layout = Layout(names.ROWS[path], (2, 24), np.dtype("float32"), ("embed",))
    else:
        layout = layout_of(path)
    shape = layout.shape[1:] if layout.row.stacked else layout.shape
    array = np.random.default_rng(0).standard_normal(shape)
    tensor = layout.to_tensor(array)
    for fraction in (1.0, 0.5):
        index = tuple(slice(int(n * (1 - fraction)), n) for n in shape)
        part = tensor[layout.tensor_index(index)]
        np.testing.assert_array_equal(layout.from_tensor(part, index), array[index])


@pytest.mark.parametrize(
    "path", ["layers/attention/query", "layers/attention/key_bias"]
)
def test_interleaved_rows_are_put_back(path: str) -> None:
    layout = layout_of(path)
    array = np.random.default_rng(0).standard_normal(layout.shape[1:])
    tensor = layout.to_tensor(array)
    heads, head_dim = array.shape[-2:]
    # As the converter of llama.cpp lays them.
    split = tensor.reshape(heads, 2, head_dim // 2, *tensor.shape[1:])
    turned = split.swapaxes(1, 2).reshape(tensor.shape)
    assert not np.array_equal(turned, tensor)
    whole = tuple(slice(0, n) for n in array.shape)
    got = layout.from_tensor(turned, whole, interleaved=True)
    np.testing.assert_array_equal(got, array)


def test_paths_and_trees_are_inverse() -> None:
    tree = {"a": {"b": jnp.ones(1), "c": {"d": jnp.ones(2)}}, "e": jnp.ones(3)}
    leaves = by_path(tree)
    assert list(leaves) == ["a/b", "a/c/d", "e"]
    assert nested(leaves) == tree
