"""Functions out of somebody's file, without importing the package that it belongs to.

A loss is a function of tensors, but the file around it imports a trainer. So the text
of the functions alone is compiled, in a namespace that holds what they use.
"""

import __future__

import ast
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Missing(ValueError):
    """A checkout does not have what an adapter looks for."""


def functions_of(path: Path, names: Sequence[str], known: dict[str, Any]) -> Any:
    """Compiles some functions or classes of a file.

    Args:
      path: the file.
      names: `function`, `Class` or `Class.method`, the last as a plain function.
      known: what they use by name; gets the functions themselves.

    Returns:
      The one asked for, or a list of them.

    Raises:
      Missing: there is no such file or name.
    """
    if not path.is_file():
        raise Missing(f"{path} must be a file of the checkout, and is not there")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    chosen = [_find(tree, name, path) for name in names]
    for node in chosen:
        for part in ast.walk(node):
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                part.decorator_list = []
    module = ast.Module(body=chosen, type_ignores=[])
    flags = __future__.annotations.compiler_flag
    # A library's own source, which its user installs and runs anyway.
    exec(compile(module, str(path), "exec", flags, dont_inherit=True), known)  # noqa: S102
    found = [known[name.rpartition(".")[2]] for name in names]
    return found[0] if len(found) == 1 else found


def _find(tree: ast.Module, name: str, path: Path) -> Any:
    nodes: list[Any] = tree.body
    node: Any = None
    for part in name.split("."):
        found = [
            x
            for x in nodes
            if isinstance(x, ast.FunctionDef | ast.ClassDef) and x.name == part
        ]
        if not found:
            raise Missing(f"{path} must have {name}, and has not")
        node = found[-1]
        nodes = node.body
    return node


def version_of(checkout: Path) -> str:
    """The commit of a checkout and its date, or a word that there is none."""
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h, %cs"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "no commit"
