"""Settings to and from a YAML file."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from jaxrl_reason.runs.files import atomic_write

SettingsT = TypeVar("SettingsT")

# Where and how a run is started, which does not affect its results.
_OF_THE_START = ("run_dir", "resume", "resume_step")


def write_config(path: Path, settings: Any) -> None:
    """Writes all settings of a run except those of its start.

    `read_config(path, default)` reads them back.
    """
    tree = to_tree(settings)
    for name in _OF_THE_START:
        tree.pop(name, None)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    atomic_write(path, text)


def read_config(path: Path) -> dict[str, Any]:
    """The contents of a YAML file of settings, not yet checked.

    Raises:
      ValueError: it cannot be read, or is not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(
            f"config must be a file that can be read, got {path}: {error.strerror}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config must be YAML, got {path}: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ValueError(f"config must hold names and values, got {path}: {tree!r}")
    return tree


def to_tree(value: Any) -> Any:
    """Settings as dicts, lists and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {name: to_tree(getattr(value, name)) for name in names}
    if isinstance(value, (tuple, list)):
        return [to_tree(x) for x in value]
    return str(value) if isinstance(value, Path) else value


def with_tree(
    settings: SettingsT, tree: Mapping[str, Any], place: str = ""
) -> SettingsT:
    """The settings with the values of a tree.

    Args:
      settings: a dataclass.
      tree: its fields by name; groups are nested trees.
      place: of the group, for messages.

    Raises:
      ValueError: a name is unknown, a value has another type than the setting, or the
      settings themselves reject it.

    Example:
      >>> from jaxrl_reason.learner.state import OptimizerSettings
      >>> with_tree(OptimizerSettings(), {"learning_rate": 1e-5}).learning_rate
      1e-05
      >>> with_tree(OptimizerSettings(), {"rate": 1e-5})
      Traceback (most recent call last):
      ValueError: config must hold known settings, got rate
    """
    assert dataclasses.is_dataclass(settings)
    assert not isinstance(settings, type)
    hints = get_type_hints(type(settings))
    changes: dict[str, Any] = {}
    for name, value in tree.items():
        where = f"{place}.{name}" if place else str(name)
        if name not in hints:
            raise ValueError(f"config must hold known settings, got {where}")
        old = getattr(settings, name)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where} must be a group of settings, got {value!r}")
            changes[name] = with_tree(old, value, where)
        else:
            changes[name] = as_type(hints[name], value, where)
    return dataclasses.replace(settings, **changes)


def as_type(wanted: Any, value: Any, where: str) -> Any:
    """A plain value as a setting's type.

    >>> as_type(tuple[int, ...], [3, 4], "countdown.numbers")
    (3, 4)
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return as_type(next(t for t in inner if t is not type(None)), value, where)
    if origin is Literal and value in inner:
        return value
    if origin is tuple and inner[0] is str and isinstance(value, str):
        return (value,)
    if origin is tuple and value is None:
        return ()
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(as_type(inner[0], x, where) for x in value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-5 as text
        except (TypeError, ValueError):
            pass
    # In Python a bool is an int.
    if wanted in (int, str, bool) and type(value) is wanted:
        return value
    if origin is Literal:
        raise ValueError(f"{where} must be one of {inner}, got {value!r}")
    name = getattr(wanted, "__name__", str(wanted)) if origin is None else wanted
    raise ValueError(f"{where} must be {name}, got {value!r}")
