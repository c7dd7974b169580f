"""A function by its place: in a user's file or in an installed package."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def load_function(place: str) -> Callable[..., Any]:
    """A function from a user's file or from a package.

    Args:
      place: `path/to/file.py:name` or `package.module:name`.

    Returns:
      The function.

    Raises:
      ValueError: the file, the module or the function does not exist.

    Example:
      >>> load_function("math:sqrt")(9)
      3.0
    """
    where, colon, name = place.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise ValueError(
            f"a function must be given as my_file.py:my_function or "
            f"package.module:function, got {place!r}"
        )
    found = getattr(load_module(where), name, None)
    if not callable(found):
        raise ValueError(f"there must be a function {name} in {where}, got none")
    function: Callable[..., Any] = found
    return function


def load_module(where: str) -> ModuleType:
    """The module of a file of a user or of a package.

    Args:
      where: `path/to/file.py`, run again at each call, or `package.module`.

    Raises:
      ValueError: it does not exist.
    """
    if not where.endswith(".py"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"a function must be in a file or module that exists, got {where} "
                f"({error})"
            ) from error
    if not Path(where).is_file():
        raise ValueError(f"a function must be in a file that exists, got {where}")
    folder = str(Path(where).resolve().parent)
    if folder not in sys.path:  # as for a script, its neighbours can be imported
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(Path(where).stem, where)
    assert spec is not None  # a .py file always has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
