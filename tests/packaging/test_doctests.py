"""Every module imports, and every example of a docstring or a page is true."""

import doctest
from pathlib import Path

import pytest

from tests.packaging.modules import ROOT, check_examples, modules_under_test


@pytest.mark.parametrize("name", modules_under_test(losses=False))
def test_examples(name: str) -> None:
    check_examples(name)


def pages() -> list[Path]:
    """The pages that hold examples."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(f for f in files if ">>>" in f.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_examples_of_pages(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.failed == 0
