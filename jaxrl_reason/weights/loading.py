"""Arrays from tensors: checked by name and shape, read directly to their devices."""

from typing import Any

import jax
import numpy as np

from jaxrl_reason.models import Params, Transformer
from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.layouts import Index, Layout, by_path, layouts_of, nested
from jaxrl_reason.weights.names import ROWS
from jaxrl_reason.weights.tensor_source import TensorSource

SHOWN = 5  # number of names that a message lists for each kind of fault


def load_params(
    source: TensorSource, model: Transformer, shardings: Params | None = None
) -> Params:
    """The parameters of a model from a source.

    Only the parts for this process's devices are read, one array after the other, so at
    most one array (with all of its layers) is in host memory.

    Args:
      source: the tensors.
      model: that they must fit.
      shardings: the tree with a sharding for every array; None for the first device.

    Returns:
      The tree of `init_params`, in the model's param_dtype.

    Raises:
      WeightsError: a tensor is missing, extra, or of another shape.
    """
    layouts = layouts_of(model)
    check_tensors(source, layouts)
    places = by_path(shardings) if shardings is not None else {}
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    arrays = {}
    for layout in layouts:
        place = places.get(layout.row.ours, alone)
        arrays[layout.row.ours] = _load_array(source, layout, place)
    return nested(arrays)


def check_tensors(source: TensorSource, layouts: list[Layout]) -> None:
    """Compares names and shapes before anything is read.

    Raises:
      WeightsError: naming the first tensors that are missing, extra or misshapen.
    """
    wanted = {
        source.name(layout.row, layer): layout.tensor_shape
        for layout in layouts
        for layer in layer_numbers(layout)
    }
    found = {
        name: shape
        for name, shape in source.shapes.items()
        if name in wanted or not source.is_recomputed(name)
    }
    head = source.name(ROWS["head"], None)
    if head in found and head not in wanted:
        _check_tied(source, head)
        del found[head]
    misshapen = [
        f"{name} must be {wanted[name]}, got {found[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    faults = {
        "missing": [f"{n} {wanted[n]}" for n in sorted(wanted.keys() - found.keys())],
        "extra": [f"{n} {found[n]}" for n in sorted(found.keys() - wanted.keys())],
        "of another shape": misshapen,
    }
    said = [
        f"{len(names)} tensors {kind}: {', '.join(names[:SHOWN])}"
        for kind, names in faults.items()
        if names
    ]
    if said:
        raise WeightsError(f"{source.path}: {'; '.join(said)}")


def layer_numbers(layout: Layout) -> list[int | None]:
    """The layers whose tensors make up an array; [None] if it is one tensor."""
    return [None] if layout.layers is None else list(range(layout.layers))


def _check_tied(source: TensorSource, head: str) -> None:
    """Checks that a head with a tied embedding is its copy: else one is wrong."""
    embedding = source.name(ROWS["embedding"], None)
    shapes = [source.shapes.get(name) for name in (embedding, head)]
    same = shapes[0] == shapes[1] and len(shapes[1] or ()) == 2
    rows, step = (shapes[1] or (0,))[0], 4096
    for start in range(0, rows if same else 0, step):
        part = (slice(start, min(start + step, rows)), slice(None))
        one, other = (source.read(name, part) for name in (embedding, head))
        same = same and np.array_equal(one, other)
    if not same:
        raise WeightsError(
            f"{source.path}: the config ties the head to {embedding} {shapes[0]}, but "
            f"{head} {shapes[1]} is another tensor; one of the two is wrong"
        )


def _load_array(source: TensorSource, layout: Layout, sharding: Any) -> jax.Array:
    # Replicas need the same part: it is read once, and dropped with this array.
    parts: dict[tuple[tuple[int, int], ...], np.ndarray] = {}

    def part(index: Index | None) -> np.ndarray:
        spans = [
            axis.indices(size)[:2]
            for axis, size in zip(index or (), layout.shape, strict=True)
        ]
        key = tuple(spans)
        if key not in parts:
            parts[key] = _read(source, layout, tuple(slice(*span) for span in spans))
        return parts[key]

    return jax.make_array_from_callback(layout.shape, sharding, part)


def _read(source: TensorSource, layout: Layout, index: Index) -> np.ndarray:
    """The part `index` of a whole array, read layer by layer into one block."""

    def one(layer: int | None, index: Index) -> np.ndarray:
        name = source.name(layout.row, layer)
        try:
            tensor = source.read(name, layout.tensor_index(index))
            return layout.from_tensor(tensor, index, interleaved=source.interleaved)
        except (OSError, ValueError, IndexError, TypeError) as error:
            raise WeightsError(
                f"{source.path}: {name} {layout.tensor_shape} cannot be read: {error}"
            ) from error

    if layout.layers is None:
        return np.ascontiguousarray(one(None, index), dtype=layout.dtype)
    shape = tuple(part.stop - part.start for part in index)
    block = np.empty(shape, layout.dtype)
    for i, layer in enumerate(range(index[0].start, index[0].stop)):
        block[i] = one(layer, index[1:])
    return block
