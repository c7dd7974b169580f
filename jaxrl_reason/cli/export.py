"""`jaxrl-reason export`: writes a model as a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jaxrl_reason.pretrained.model_card import ModelCard
from jaxrl_reason.pretrained.model_folder import check_new_folder, export_model
from jaxrl_reason.pretrained.reading import read_model
from jaxrl_reason.text.gguf_metadata import read_metadata
from jaxrl_reason.weights import find_model
from jaxrl_reason.weights.hub import HUB_ID


@dataclass(frozen=True)
class ExportSettings:
    """Write a model, for example a GGUF file, as a Hugging Face folder.

    Attributes:
      model: a Hugging Face folder, a .gguf file or a hub id.
      out: the folder to write; must be new or empty.
      license: of the model, such as apache-2.0; a GGUF file may state its own.
      name: title of the model card; the folder's name if not given.
      base_model: hub id of the model that this one is derived from, for the card; if
        not given, that of --model, or the name of its file.
      language: language codes for the card.
      tags: tags for the card.
      dtype: of the tensors. float32 is exact; bfloat16 rounds other types, in half the
        space.
    """

    model: str
    out: Path
    license: str | None = None
    name: str | None = None
    base_model: str | None = None
    language: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: the settings or files cannot be used.
    """
    settings = tyro.cli(ExportSettings, args=argv, prog="jaxrl-reason export")
    print(f"written: {convert(settings)}")


def convert(settings: ExportSettings) -> Path:
    """Reads a model and writes it as a folder.

    Args:
      settings: of the command.

    Returns:
      The folder.

    Raises:
      ValueError: as `load_pretrained`, `load_tokenizer` and `export_model`, or no
        license is known.
    """
    # Cheap checks first: weights may take minutes.
    check_new_folder(settings.out)
    found = find_model(settings.model)
    card = _card(settings, found)
    loaded, tokenizer = read_model(str(found), param_dtype=settings.dtype)
    return export_model(
        settings.out,
        loaded.config,
        loaded.params,
        tokenizer,
        card,
        family=loaded.family,
    )


def _card(settings: ExportSettings, found: Path) -> ModelCard:
    license = settings.license or _license_of(found)
    if license is None:
        raise ValueError(
            f"--license must be given where the file names none, got neither for "
            f"{settings.model}"
        )
    hub = not Path(settings.model).exists() and HUB_ID.fullmatch(settings.model)
    source = settings.model if hub else found.resolve().name
    recipe = f"Read from `{source}` and written as {settings.dtype} tensors by "
    recipe += "`jaxrl-reason export`; not trained."
    if found.suffix == ".gguf":
        recipe += " Numbers that the file holds quantised were dequantised, so they "
        recipe += "are those of the file and not of the model it was quantised from."
    return ModelCard(
        name=settings.name or settings.out.resolve().name,
        base_model=settings.base_model or source,
        license=license,
        data="None: the parameters are those that were read.",
        recipe=recipe,
        language=settings.language,
        tags=settings.tags,
    )


def _license_of(found: Path) -> str | None:
    """The license that a GGUF file names."""
    if not found.is_file():
        return None
    named = read_metadata(found, "general.license").get("general.license")
    return named.lower() if isinstance(named, str) else None
