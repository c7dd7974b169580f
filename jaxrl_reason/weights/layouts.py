"""The layout of a model's array in the tensors of a file, from its declaration."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.models import Transformer, abstract_params, param_axes
from jaxrl_reason.weights.names import LAYERS, MERGED, ROWS, Row

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Layout:
    """One array of the model and its tensors.

    Attributes:
      row: its row of the table of names.
      shape: of the whole array, [L, ...] if layers are stacked.
      dtype: of the model's array.
      axes: logical axes of one layer's array.
    """

    row: Row
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str, ...]

    @property
    def layers(self) -> int | None:
        """The number of tensors of the array, None for one without a layer number."""
        return self.shape[0] if self.row.stacked else None

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each logical axis of one layer's array."""
        inner = self.shape[1:] if self.row.stacked else self.shape
        return dict(zip(self.axes, inner, strict=True))

    @property
    def tensor_axes(self) -> list[list[str]]:
        """The logical axes that make up each dimension of a tensor."""
        return [dimension.split(MERGED) for dimension in self.row.axes.split()]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of a tensor in the file."""
        return tuple(
            math.prod(self.sizes[axis] for axis in group) for group in self.tensor_axes
        )

    def tensor_index(self, index: Index) -> Index:
        """The part of a tensor that contains `index` of one layer's array.

        Of merged axes only the first is sliced; `from_tensor` slices the others.
        """
        wanted = dict(zip(self.axes, index, strict=True))
        parts = []
        for first, *rest in self.tensor_axes:
            inner = math.prod(self.sizes[axis] for axis in rest)
            start, stop, _ = wanted[first].indices(self.sizes[first])
            parts.append(slice(start * inner, stop * inner))
        return tuple(parts)

    def from_tensor(
        self, part: np.ndarray, index: Index, *, interleaved: bool = False
    ) -> np.ndarray:
        """`index` of a layer's array, from the part `tensor_index(index)` of a tensor.

        Args:
          part: of the tensor.
          index: one slice for each axis of the array.
          interleaved: whether rotary halves are interleaved, as in GGUF's llama files.
        """
        wanted = dict(zip(self.axes, index, strict=True))
        axes, shape, slices = [], [], []
        for size, (first, *rest) in zip(part.shape, self.tensor_axes, strict=True):
            inner = [self.sizes[axis] for axis in rest]
            axes += [first, *rest]
            shape += [size // math.prod(inner), *inner]
            slices += [slice(None), *(wanted[axis] for axis in rest)]
        part = part.reshape(shape)
        if interleaved and self.row.rotary:
            heads, head_dim = shape[:2]
            part = part.reshape(heads, head_dim // 2, 2, *shape[2:])
            part = part.swapaxes(1, 2).reshape(shape)
        return part[tuple(slices)].transpose([axes.index(axis) for axis in self.axes])

    def to_tensor(self, array: np.ndarray) -> np.ndarray:
        """The tensor of one layer's whole array."""
        order = [axis for group in self.tensor_axes for axis in group]
        tensor = array.transpose([self.axes.index(axis) for axis in order])
        return np.ascontiguousarray(tensor.reshape(self.tensor_shape))


def layouts_of(model: Transformer) -> list[Layout]:
    """The layout of every array that a model declares, in the order of the table.

    Raises:
      ValueError: an array that the model declares has no row in the table, or its
        axes are not those of the row.
    """
    shapes, axes = by_path(abstract_params(model)), by_path(param_axes(model))
    unknown = shapes.keys() - ROWS.keys()
    if unknown:
        raise ValueError(f"arrays of a model need a row in the table, got {unknown}")
    layouts = []
    for path, row in ROWS.items():
        if path not in shapes:
            continue
        names = tuple(axis or "-" for axis in axes[path] if axis != LAYERS)
        array = shapes[path]
        layout = Layout(row, array.shape, np.dtype(array.dtype), names)
        named = sorted(axis for group in layout.tensor_axes for axis in group)
        if named != sorted(names):
            raise ValueError(f"{path} must have the axes {row.axes!r}, got {names}")
        layouts.append(layout)
    return layouts


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of nested dicts under "a/b/c"; a tuple is a leaf."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict):
            for key, child in node.items():
                yield from walk(child, f"{path}/{key}" if path else key)
        else:
            yield path, node

    return dict(walk(tree, ""))


def nested(leaves: dict[str, jax.Array]) -> dict[str, Any]:
    """The inverse of `by_path`.

    >>> nested({"a/b": 1, "a/c": 2, "d": 3})
    {'a': {'b': 1, 'c': 2}, 'd': 3}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree
