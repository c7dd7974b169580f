"""A pretrained model from a path: settings, parameters, special tokens."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from jaxrl_reason.models import (
    Params,
    Transformer,
    TransformerConfig,
    abstract_params,
    param_axes,
)
from jaxrl_reason.sharding import ShardingRules, tree_shardings
from jaxrl_reason.weights.gguf_config import read_gguf_config
from jaxrl_reason.weights.gguf_file import GGUFFile
from jaxrl_reason.weights.hf_config import HFConfig, read_hf_config, read_special
from jaxrl_reason.weights.hub import find_model
from jaxrl_reason.weights.loading import load_params
from jaxrl_reason.weights.names import ROWS
from jaxrl_reason.weights.safetensors_folder import SafetensorsFolder
from jaxrl_reason.weights.special_token_ids import SpecialTokenIds
from jaxrl_reason.weights.tensor_source import TensorSource
from jaxrl_reason.weights.untrusted import read_json


@dataclass(frozen=True)
class Pretrained:
    """A model read from its files.

    Attributes:
      config: the settings of the transformer.
      params: its parameters, a tree like that of `init_params`.
      special: its BOS, EOS and padding token ids.
      family: model_type of config.json, for export.
      path: its folder or file, which also has its tokenizer.
    """

    config: TransformerConfig
    params: Params
    special: SpecialTokenIds
    family: str
    path: Path


def load_pretrained(
    path: str | Path,
    *,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    revision: str | None = None,
    **settings: Any,
) -> Pretrained:
    """Reads a model from a Hugging Face folder, a .gguf file or a hub id.

    Every array is read directly to its devices; one array at a time is in host memory.

    Args:
      path: see `find_model`.
      mesh: the devices; None for the first device.
      rules: how arrays are sharded over the mesh, the default rules if None.
      revision: branch, tag or commit of a hub id.
      **settings: fields of TransformerConfig that are not in files but chosen by a run:
        dtype, param_dtype ("float32" by default, for every file), matmul_dtype,
        attention, remat, scan_unroll, and a shorter context_length.

    Returns:
      The model.

    Raises:
      WeightsError: the files are missing, damaged, or of an unsupported model.
      ValueError: a setting is none of these, or the mesh does not divide an array.
    """
    chosen = {"dtype", "param_dtype", "matmul_dtype", "attention", "remat"}
    chosen |= {"scan_unroll", "context_length"}
    if settings.keys() - chosen:
        raise ValueError(
            f"settings must be among {sorted(chosen)}, got {sorted(settings)}"
        )
    found = find_model(path, revision=revision)
    source, said = _open_model(found)
    try:
        model = Transformer(_with_settings(said.model, settings))
        places = None
        if mesh is not None:
            shapes, axes = abstract_params(model), param_axes(model)
            places = tree_shardings(mesh, rules or ShardingRules(), axes, shapes)
        params = load_params(source, model, places)
    finally:
        source.close()
    return Pretrained(model.config, params, said.special, said.family, found)


def read_model_config(
    path: str | Path, *, revision: str | None = None
) -> TransformerConfig:
    """The settings of a model without its parameters, which need not be there.

    Args:
      path: see `find_model`.
      revision: branch, tag or commit of a hub id.

    Returns:
      The settings.

    Raises:
      WeightsError: the files are missing, damaged, or of an unsupported model.
    """
    found = find_model(path, revision=revision)
    if found.is_file():
        file = GGUFFile(found)
        try:
            return read_gguf_config(file).model
        finally:
            file.close()
    place = found / "config.json"
    return read_hf_config(read_json(place), place).model


def _with_settings(
    config: TransformerConfig, settings: dict[str, Any]
) -> TransformerConfig:
    asked = settings.get("context_length", config.context_length)
    if asked > config.context_length:
        raise ValueError(
            f"context_length must be at most the model's ({config.context_length}), "
            f"got {asked}"
        )
    return replace(config, **settings)


def _open_model(path: Path) -> tuple[TensorSource, HFConfig]:
    if path.is_file():
        file = GGUFFile(path)
        return file, read_gguf_config(file)
    said = read_hf_config(read_json(path / "config.json"), path / "config.json")
    generation = path / "generation_config.json"
    if generation.exists():
        special = read_special(read_json(generation), generation)
        # Generation uses it; tokens that it does not name are taken from config.json.
        special = replace(
            said.special,
            **{name: value for name, value in vars(special).items() if value},
        )
        said = replace(said, special=special)
    folder = SafetensorsFolder(path, text_part=said.text_part)
    if said.text_part:
        tied = folder.name(ROWS["head"], None) not in folder.shapes
        said = replace(said, model=replace(said.model, tie_embeddings=tied))
    return folder, said
