"""Writes a model as a folder that Hugging Face's libraries can read."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl_reason.models import Params, Transformer, TransformerConfig
from jaxrl_reason.weights.hf_config import hf_fields
from jaxrl_reason.weights.layouts import Layout, by_path, layouts_of
from jaxrl_reason.weights.loading import layer_numbers
from jaxrl_reason.weights.safetensors_folder import INDEX, ONE_FILE
from jaxrl_reason.weights.special_token_ids import SpecialTokenIds

LARGEST_FILE = 4 * 10**9
GENERATION = "generation_config.json"

# A tensor to create: its name, its layout, its layer.
Planned = tuple[str, Layout, int | None]


def export_hf(
    folder: str | Path,
    config: TransformerConfig,
    params: Params,
    *,
    special: SpecialTokenIds | None = None,
    family: str | None = None,
    dtype: str | None = None,
    largest_file: int = LARGEST_FILE,
) -> Path:
    """Writes config.json, safetensors and generation_config.json.

    With dtype None, reading the folder with the same param_dtype gives the same bits.

    Args:
      folder: new or empty; created if missing.
      config: settings of the model.
      params: its parameters.
      special: token ids to name; none if None.
      family: model_type; None for the first family that has the settings.
      dtype: type of the tensors, "float32" or "bfloat16"; None for that of config.
      largest_file: bytes of tensors in one file; more go to several files with an
        index. One file at a time is in host memory.

    Returns:
      The folder.

    Raises:
      ValueError: the folder is not empty, no family has the settings, the parameters
      are not the model's, dtype is unknown, or largest_file < 1.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder must be absent or empty, got {folder}")
    dtype = config.param_dtype if dtype is None else dtype
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype!r}")
    if largest_file < 1:
        raise ValueError(f"largest_file must be >= 1, got {largest_file}")
    special = special or SpecialTokenIds()
    fields = hf_fields(config, special, family=family, dtype=dtype)
    arrays, layouts = by_path(params), layouts_of(Transformer(config))
    _check_arrays(arrays, layouts)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    generation = {name: fields[name] for name in names if fields[name] is not None}
    _write_json(folder / GENERATION, generation)
    _write_tensors(folder, arrays, layouts, np.dtype(dtype), largest_file)
    # Last: a folder without it is incomplete.
    _write_json(folder / "config.json", fields)
    return folder


def hf_tensors(
    config: TransformerConfig, params: Params, *, dtype: str | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors with their Hugging Face names, one after the other.

    For passing the updated policy to an inference engine.

    Args:
      config: settings of the model.
      params: its parameters.
      dtype: of the tensors; None for that of config.

    Yields:
      Name and tensor.
    """
    arrays, layouts = by_path(params), layouts_of(Transformer(config))
    _check_arrays(arrays, layouts)
    kept = np.dtype(config.param_dtype if dtype is None else dtype)
    for planned in _planned(layouts):
        yield planned[0], _tensor(arrays, planned, kept)


def _check_arrays(arrays: dict[str, Any], layouts: list[Layout]) -> None:
    wanted = {layout.row.ours: layout.shape for layout in layouts}
    got = {path: tuple(array.shape) for path, array in arrays.items()}
    if wanted != got:
        odd = dict(wanted.items() ^ got.items())
        raise ValueError(f"params must be the model's; these differ: {sorted(odd)}")
    for path, array in arrays.items():
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            raise ValueError(f"params must be gathered to this process, got {path}")


def _planned(layouts: list[Layout]) -> list[Planned]:
    """All tensors, layer by layer, as readers expect them."""
    planned = [
        (layout.row.hugging_face.format(layer), layout, layer)
        for layout in layouts
        for layer in layer_numbers(layout)
    ]
    return sorted(planned, key=lambda tensor: -1 if tensor[2] is None else tensor[2])


def _tensor(
    arrays: dict[str, jax.Array], planned: Planned, dtype: np.dtype
) -> np.ndarray:
    _, layout, layer = planned
    one = _one_layer(arrays[layout.row.ours], layer)
    return layout.to_tensor(one.astype(dtype, copy=False))


def _one_layer(array: jax.Array, layer: int | None) -> np.ndarray:
    if layer is None:
        return np.asarray(array)
    if isinstance(array, jax.Array) and {d.platform for d in array.devices()} != {
        "cpu"
    }:
        # Sliced on the device: otherwise the array keeps a host copy of the whole.
        return np.asarray(array[layer])
    return np.asarray(array)[layer]


def _write_tensors(
    folder: Path,
    arrays: dict[str, jax.Array],
    layouts: list[Layout],
    dtype: np.dtype,
    largest_file: int,
) -> None:
    from safetensors.numpy import save_file

    files: list[list[Planned]] = [[]]
    filled, total = 0, 0
    for planned in _planned(layouts):
        size = int(np.prod(planned[1].tensor_shape)) * dtype.itemsize
        if files[-1] and filled + size > largest_file:
            files.append([])
            filled = 0
        files[-1].append(planned)
        filled, total = filled + size, total + size
    places = {}
    for i, inside in enumerate(files):
        many = f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        name = ONE_FILE if len(files) == 1 else many
        tensors = {planned[0]: _tensor(arrays, planned, dtype) for planned in inside}
        # transformers requires the format.
        save_file(tensors, folder / name, metadata={"format": "pt"})
        # The package creates files that only their owner may read.
        shutil.copymode(folder / GENERATION, folder / name)
        places.update(dict.fromkeys(tensors, name))
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        _write_json(folder / INDEX, index)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
