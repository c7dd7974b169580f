"""Every module imports, and every example of a docstring or a page is true."""

import doctest
import importlib
from pathlib import Path

import pytest

import jaxrl_reason.losses

ROOT = Path(__file__).parents[2]


def house_modules() -> list[str]:
    """Names of all modules, of the two folders beside the package as well."""
    files = [
        *(ROOT / "jaxrl_reason").rglob("*.py"),
        *(ROOT / "losses").rglob("*.py"),
        *(ROOT / "sharding").rglob("*.py"),
    ]
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    inside = (name.removeprefix("jaxrl_reason.") for name in names)
    inside = (name.removesuffix("__init__").rstrip(".") for name in inside)
    return sorted(f"jaxrl_reason.{name}".rstrip(".") for name in inside)


def public_packages() -> list[str]:
    """The packages that name what they offer."""
    packages = [m for m in house_modules() if (folder_of(m) / "__init__.py").exists()]
    return [m for m in packages if hasattr(importlib.import_module(m), "__all__")]


def folder_of(module: str) -> Path:
    inside = module.split(".")
    bare = inside[1:2] in (["losses"], ["sharding"])
    return ROOT.joinpath(*(inside[1:] if bare else inside))


PUBLIC_PACKAGES = public_packages()
# Where the public names stand, whose examples are among the fast tests.
PUBLIC_MODULES = {
    getattr(getattr(package, name), "__module__", "")
    for package in map(importlib.import_module, PUBLIC_PACKAGES)
    for name in package.__all__
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.fast if name in PUBLIC_MODULES else ())
        for name in house_modules()
    ],
)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def pages() -> list[Path]:
    """The pages that hold examples."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(f for f in files if ">>>" in f.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_examples_of_pages(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.failed == 0


def test_every_public_loss_has_an_example() -> None:
    losses = jaxrl_reason.losses
    functions = [getattr(losses, name) for name in losses.__all__ if name[0].islower()]
    assert [f.__name__ for f in functions if ">>>" not in f.__doc__] == []
