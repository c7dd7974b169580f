"""Every fault in docs/faults.md has its test."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ["fault", "what happens", "what is lost", "what you see", "test"]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def table_rows(page: str) -> Iterator[list[str]]:
    """The cells of each row of the page's tables, with those of their heads."""
    for line in page.splitlines():
        if line.startswith("|") and set(line) - set("|- "):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def missing_tests(page: str, root: Path) -> list[str]:
    """What is wrong with the rows of the page, a line for each fault."""
    faults = []
    for cells in table_rows(page):
        if cells == COLUMNS:
            continue
        if len(cells) != len(COLUMNS) or not all(cells):
            faults.append(f"not {len(COLUMNS)} cells: {cells}")
            continue
        named = TEST.findall(cells[-1])
        if not named or TEST.sub("", cells[-1]).strip(", "):
            faults.append(f"not tests: {cells[-1]}")
        faults += [f"{f}::{n}" for f, n in named if n not in functions(root / f)]
    return faults


def functions(path: Path) -> set[str]:
    """The names of a file's functions."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_its_test(root: Path) -> None:
    page = (root / "docs" / "faults.md").read_text(encoding="utf-8")
    assert sum(cells != COLUMNS for cells in table_rows(page)) > 5
    assert missing_tests(page, root) == []


def test_rows_without_a_test_are_found(root: Path) -> None:
    row = "| a | b | c | d | {} |"
    good = "`tests/packaging/test_fault_table.py::test_every_fault_has_its_test`"
    assert missing_tests(row.format(f"{good}, {good}"), root) == []
    for bad in (good + " and more", good.replace("every", "no"), "none", ""):
        assert len(missing_tests(row.format(bad), root)) == 1, bad
