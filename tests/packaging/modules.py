"""The modules of the tree, the public ones among them, and their examples as tests."""

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest

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


def modules_under_test(*, losses: bool) -> list[Any]:
    """Parameters: the modules of losses or all others; public ones are fast tests."""
    return [
        pytest.param(name, marks=pytest.mark.fast if name in PUBLIC_MODULES else ())
        for name in house_modules()
        if name.startswith("jaxrl_reason.losses") == losses
    ]


def check_examples(name: str) -> None:
    """Imports a module and runs the examples in its docstrings."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
