"""The manifest of a checkpoint: its files at the time of writing."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import file_sha256, list_files

NAME = "manifest.json"
_FORMAT = 1
# Files that desktops leave in folders that they show.
_IGNORED_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


def write(folder: Path, contents: Mapping[str, Any]) -> None:
    """Writes a folder's manifest: the contents, every file's size and SHA-256.

    Args:
      folder: holds all files that belong to the checkpoint.
      contents: JSON object with at least "step".
    """
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "sha256": file_sha256(folder / name),
        }
        for name in list_files(folder)
    }
    full = {"format": _FORMAT, **contents, "files": files}
    full["checksum"] = _checksum(full)
    (folder / NAME).write_text(json.dumps(full, indent=1), encoding="utf-8")


def read(folder: Path, step: int) -> dict[str, Any]:
    """Reads a folder's manifest.

    Args:
      folder: of the checkpoint.
      step: the step that the manifest must be for.

    Returns:
      The JSON object.

    Raises:
      ValueError: missing, damaged or of another format; the message says which.
    """
    try:
        manifest = json.loads((folder / NAME).read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError("missing") from None
    except ValueError:  # also bytes that are not UTF-8
        raise ValueError("not readable as JSON") from None
    if not isinstance(manifest, dict) or manifest.get("checksum") != _checksum(
        manifest
    ):
        raise ValueError("changed since it was written (checksum differs)")
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {_FORMAT}")
    if manifest["step"] != step:
        raise ValueError(f"written for step {manifest['step']}, folder renamed")
    return manifest


def find_damage(folder: Path, step: int) -> list[str]:
    """Reads every file of a checkpoint and reports what is wrong with it.

    Args:
      folder: of the checkpoint.
      step: that the manifest must be written for.

    Returns:
      One line per fault, starting with the file's name; empty if it is intact.
    """
    try:
        expected = read(folder, step)["files"]
    except (OSError, ValueError) as error:
        return [f"{NAME}: {error}"]
    found = [name for name in list_files(folder) if name != NAME]
    faults = [
        f"{name}: not written by the checkpoint"
        for name in found
        if name not in expected and Path(name).name not in _IGNORED_FILES
    ]
    for name, entry in expected.items():
        if name not in found:
            faults.append(f"{name}: missing")
        elif (size := (folder / name).stat().st_size) != entry["size"]:
            faults.append(f"{name}: has {size} bytes, written with {entry['size']}")
        elif file_sha256(folder / name) != entry["sha256"]:
            faults.append(f"{name}: changed since it was written (SHA-256 differs)")
    return faults


def as_json(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The value after a round trip through JSON, so that comparisons agree."""
    try:
        result = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a JSON object: {error}") from error
    if not isinstance(result, dict):
        raise ValueError(f"{name} must be a JSON object, got {type(value).__name__}")
    return result


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else key))
    return flat


def differences(
    first: Any, second: Any, names: tuple[str, str] = ("saved", "asked")
) -> list[str]:
    """The fields in which two JSON objects differ, called by these names.

    >>> differences({"model": {"width": 64}}, {"model": {"width": 128}})
    ['model.width: saved 64, asked 128']
    """
    left, right = _flatten(first), _flatten(second)
    absent = object()
    lines = []
    for key in [*left, *(key for key in right if key not in left)]:
        old, new = left.get(key, absent), right.get(key, absent)
        if old is absent or new is absent or old != new:
            shown = ["absent" if x is absent else str(x) for x in (old, new)]
            lines.append(f"{key}: {names[0]} {shown[0]}, {names[1]} {shown[1]}")
    return lines


def _checksum(contents: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in contents.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
