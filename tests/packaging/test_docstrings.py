"""Docstrings have the form that CONTRIBUTING.md gives them."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("jaxrl_reason", "losses", "sharding", "experiments")
FILES = sorted(
    file
    for name in FOLDERS
    for file in (ROOT / name).rglob("*.py")
    if not file.name.startswith("_") or file.name == "__init__.py"
)
SECTION = re.compile(
    r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples):\n(?: {0,1}\S| {3,}\S)",
    re.MULTILINE,
)
# A field that is a group of settings is described by the group itself.
GROUP = re.compile(r"(Annotated\[)?\w+(Settings|Flags)\b")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented(file: Path) -> Iterator[tuple[str, Documented]]:
    """Everything in a file that may have a docstring, with its place."""
    place = file.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, Documented):
            yield f"{place}: {getattr(node, 'name', 'the module')}", node


def is_dataclass(node: ast.ClassDef) -> bool:
    decorated = any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    return decorated or any(
        ast.unparse(base).endswith("NamedTuple") for base in node.bases
    )


def fields(node: ast.ClassDef) -> dict[str, str]:
    """The public fields that the class itself declares, with their types."""
    return {
        line.target.id: ast.unparse(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
        and isinstance(line.target, ast.Name)
        and "ClassVar" not in ast.unparse(line.annotation)
        and not line.target.id.startswith("_")
    }


def has_text_below_a_field(node: ast.ClassDef) -> bool:
    return any(
        isinstance(line, ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        for line, below in itertools.pairwise(node.body)
    )


def attributes(node: ast.ClassDef) -> list[str]:
    """The names in the section Attributes of a class's docstring."""
    text = ast.get_docstring(node) or ""
    section = re.search(r"^Attributes:\n((?: {2}.*\n?|\n)+)", text, re.MULTILINE)
    return re.findall(r"^ {2}(\w+):", section[1], re.MULTILINE) if section else []


@pytest.mark.parametrize("folder", FOLDERS)
def test_sections_are_indented_by_two_spaces(folder: str) -> None:
    wrong = [
        place
        for file in FILES
        if file.relative_to(ROOT).parts[0] == folder
        for place, node in documented(file)
        if SECTION.search(ast.get_docstring(node) or "")
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", FOLDERS[:-1])
def test_dataclasses_document_their_fields_in_one_way(folder: str) -> None:
    wrong = []
    for file in FILES:
        if file.relative_to(ROOT).parts[0] != folder:
            continue
        for place, node in documented(file):
            if not isinstance(node, ast.ClassDef) or not is_dataclass(node):
                continue
            if node.name.startswith("_"):
                continue
            found, told = fields(node), set(attributes(node))
            needed = {name for name, kind in found.items() if not GROUP.match(kind)}
            if has_text_below_a_field(node) or not needed <= told <= found.keys():
                wrong.append(place)
    assert wrong == []
