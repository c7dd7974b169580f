"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import jaxrl_reason.losses
import jaxrl_reason.sharding

MODULES = [
    module.name
    for package in (jaxrl_reason.losses, jaxrl_reason.sharding)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_every_public_loss_has_an_example() -> None:
    public = {
        name: getattr(jaxrl_reason.losses, name) for name in jaxrl_reason.losses.__all__
    }
    functions = {name: f for name, f in public.items() if not isinstance(f, type)}
    assert [name for name, f in functions.items() if ">>>" not in f.__doc__] == []
