"""Tensors of a Hugging Face folder: safetensors files, with an index if several."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.layouts import Index
from jaxrl_reason.weights.names import Row
from jaxrl_reason.weights.untrusted import read_json

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F32", "F16", "BF16")
# A vision-language model has the language model under a separate prefix, in one of two
# published forms.
TEXT_PREFIXES = {"model.language_model.": "model.", "language_model.": ""}
OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")


class SafetensorsFolder:
    """The tensors of a folder, opened once and read lazily.

    Args:
      path: the folder.
      text_part: whether the folder has a vision-language model; only its language model
        is read.

    Raises:
      WeightsError: a file is missing, damaged, outside the folder, or does not match
      the index.
    """

    interleaved = False

    def __init__(self, path: Path, *, text_part: bool = False) -> None:
        self.path = path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}  # open files by name
        self._places: dict[str, str] = {}  # tensor -> name of its file
        self._renamed: dict[str, str] = {}  # plain name -> name in the file
        try:
            for file, wanted in _files_of(path).items():
                self._open(file, wanted, text_part)
        except BaseException:
            self.close()
            raise

    def _open(self, file: str, wanted: set[str] | None, text_part: bool) -> None:
        """Opens one file and records its tensors; `wanted` are those in the index."""
        from safetensors import SafetensorError, safe_open

        path = self.path / file
        try:
            handle = safe_open(path, framework="numpy")
            self._files[file] = handle
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise WeightsError(f"{path}: the file is missing") from None
        except (SafetensorError, OSError, ValueError, MemoryError) as error:
            raise WeightsError(f"{path}: damaged: {error}") from error
        if wanted is not None and wanted != slices.keys():
            raise WeightsError(
                f"{path}: must hold what {INDEX} says; missing "
                f"{sorted(wanted - slices.keys())[:4]}, extra "
                f"{sorted(slices.keys() - wanted)[:4]}"
            )
        for name, piece in slices.items():
            if text_part and name.removeprefix("model.").startswith(OTHER_PARTS):
                continue
            if piece.get_dtype() not in FLOATS:
                raise WeightsError(
                    f"{path}: {name} must be one of {FLOATS}, got {piece.get_dtype()}"
                )
            self.shapes[name] = tuple(piece.get_shape())
            self._places[name] = file
            self._renamed[_plain(name) if text_part else name] = name

    def name(self, row: Row, layer: int | None) -> str:
        """The name in the file, or the plain Hugging Face name if it has none."""
        plain = row.hugging_face.format(layer)
        return self._renamed.get(plain, plain)

    def read(self, name: str, index: Index) -> np.ndarray:
        """The part `index` of a tensor, in the file's dtype."""
        return self._files[self._places[name]].get_slice(name)[index]

    def is_recomputed(self, name: str) -> bool:
        """Whether it is a table of rotary frequencies, as in old files."""
        return name.endswith(".rotary_emb.inv_freq")

    def close(self) -> None:
        """Closes the files."""
        self._files.clear()


def _plain(name: str) -> str:
    for prefix, plain in TEXT_PREFIXES.items():
        if name.startswith(prefix):
            return plain + name.removeprefix(prefix)
    return name


def _files_of(path: Path) -> dict[str, set[str] | None]:
    """The safetensors files of a folder, with their tensors according to the index."""
    if (path / ONE_FILE).exists():
        return {ONE_FILE: None}
    if not (path / INDEX).exists():
        found = sorted(file.name for file in path.iterdir())[:20]
        raise WeightsError(f"{path}: must hold {ONE_FILE} or {INDEX}, got {found}")
    index = read_json(path / INDEX)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{path / INDEX}: weight_map must be a non-empty object")
    files: dict[str, set[str] | None] = {}
    tensors: dict[str, set[str]] = {}
    for tensor, file in places.items():
        if not _is_plain_file_name(file):
            raise WeightsError(
                f"{path / INDEX}: {tensor} must be in a .safetensors file of the same "
                f"folder, got {file!r}"
            )
        tensors.setdefault(file, set()).add(tensor)
    files.update(sorted(tensors.items()))
    return files


def _is_plain_file_name(name: Any) -> bool:
    """Whether a name can only be a file next to the index, on any system."""
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and "\0" not in name
        and PurePosixPath(name).name == name == PureWindowsPath(name).name
    )
