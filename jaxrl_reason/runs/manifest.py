"""The manifest of a checkpoint: its files at the time of writing."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import file_sha256, file_size, list_files

NAME = "manifest.json"
_FORMAT = 1
# Deeper JSON than any that is written here; what reads it recurses.
_DEEPEST = 32
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
            "size": file_size(folder / name),
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
    manifest = read_damaged_json(folder / NAME)
    if manifest.get("checksum") != _checksum(manifest):
        raise ValueError("changed since it was written (checksum differs)")
    if manifest.get("format") != _FORMAT:
        given = manifest.get("format")
        raise ValueError(f"format {given}, this version reads {_FORMAT}")
    if manifest.get("step") != step:
        raise ValueError(f"written for step {manifest.get('step')}, folder renamed")
    if not _has_form(manifest):
        raise ValueError("not of the form that is written here")
    return manifest


def read_damaged_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object that may be damaged, or made to do harm.

    Args:
      path: of the file.

    Returns:
      The object, at most some tens of objects deep.

    Raises:
      ValueError: missing, not JSON, not an object or too deep; the message says which.
      OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError("missing") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:  # also bytes that are not UTF-8
        raise ValueError("not readable as JSON") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    if _is_deep(found):
        raise ValueError("nested too deeply")
    return found


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
        fault = "missing" if name not in found else _fault(folder / name, entry)
        if fault is not None:
            faults.append(f"{name}: {fault}")
    return faults


def _fault(path: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, if anything is."""
    try:
        size = file_size(path)
        if size != entry["size"]:
            return f"has {size} bytes, written with {entry['size']}"
        if file_sha256(path) != entry["sha256"]:
            return "changed since it was written (SHA-256 differs)"
    except FileNotFoundError:  # a link
        return "a link to a file that is gone"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _has_form(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest has every field that is read, each of its kind."""
    files, tree = manifest.get("files"), manifest.get("tree")
    if not isinstance(manifest.get("fingerprint"), dict) or not isinstance(tree, dict):
        return False
    if not isinstance(files, dict) or not all(
        isinstance(x, dict) for x in files.values()
    ):
        return False
    sizes = [entry.get("size") for entry in files.values()]
    hashes = [entry.get("sha256") for entry in files.values()]
    score = manifest.get("score")
    return (
        all(type(size) is int for size in sizes)
        and all(isinstance(x, str) for x in (*hashes, *tree.values()))
        and (score is None or isinstance(score, float))
    )


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inner = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for found in inner for x in found if isinstance(x, (dict, list))]
    return bool(level)


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
