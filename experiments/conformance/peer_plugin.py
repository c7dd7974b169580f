"""A pytest plugin: the tests of another library with functions of this one.

`peer_tests.py` starts it. It stands in for packages that are not installed, puts the
adapters of one library in place of its functions before the tests import them, and
writes down for each test how it ended and which adapters it called.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from experiments.conformance.bridge import ours, theirs

RESULTS: dict[str, dict[str, Any]] = {}


class Anything(type):
    """A class that has every attribute; as a decorator it changes nothing."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__bases__ != (object,):  # a class of theirs made from one of these
            return super().__call__(*args, **kwargs)
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        return Anything("made", (), {})

    def __bool__(cls) -> bool:
        return False  # nothing is initialised


class StandIn(ModuleType):
    """A module that has every attribute."""

    __version__ = "0.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds packages and modules that cannot be imported, and all inside them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = tuple(x for x in names if not importable(x))

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """A module of ours in the place of each."""
        if any(fullname == x or fullname.startswith(x + ".") for x in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        """The module."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run."""


def importable(name: str) -> bool:
    """Whether a module can be imported; tries."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


class OnCpu(TorchFunctionMode):
    """Whatever a test asks to lie on a GPU lies on the CPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        def here(x: Any) -> Any:
            gpu = isinstance(x, str | torch.device) and str(x).startswith("cuda")
            return torch.device("cpu") if gpu else x

        if func is torch.Tensor.cuda:
            return args[0]
        named = {name: here(x) for name, x in (kwargs or {}).items()}
        return func(*map(here, args), **named)


def pytest_addoption(parser: Any) -> None:
    """The options that `peer_tests.py` gives."""
    parser.addoption("--peer", help="a module with adapters")
    parser.addoption("--peer-results", help="a JSON file to write")
    parser.addoption(
        "--peer-own", action="store_true", help="its functions as they are"
    )


def pytest_configure(config: Any) -> None:
    """Puts the adapters in place, before a test file is imported."""
    name = config.getoption("--peer")
    if name is None:
        return
    peer = importlib.import_module(name)
    sys.meta_path.insert(0, StandIns(peer.STAND_INS))
    if sys.version_info < (3, 12):  # pydantic asks for the other one
        extensions = importlib.import_module("typing_extensions")
        typing.TypedDict = extensions.TypedDict
    if peer.ON_CPU:
        torch.cuda.is_available = lambda: True
        OnCpu().__enter__()
    if not config.getoption("--peer-own"):
        for place, adapter in peer.adapters().items():
            replace(place, adapter)


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Tests without mathematics that start processes are not run."""
    if config.getoption("--peer") is not None:
        peer = importlib.import_module(config.getoption("--peer"))
        for item in items:
            if any(part in item.nodeid for part in peer.NOT_RUN):
                item.add_marker(pytest.mark.skip(reason="starts processes"))


def replace(place: str, adapter: Callable[..., Any]) -> None:
    """`module:name` or `module:Class.name`; a registered function there as well."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)

    old = theirs[place] = getattr(owner, name)  # an adapter of nothing is a mistake
    setattr(owner, name, adapter)
    for registry in registries(importlib.import_module(module)):
        for key, function in registry.items():
            if getattr(function, "__wrapped__", function) is old or function is old:
                registry[key] = adapter


def registries(module: ModuleType) -> Iterator[dict[Any, Any]]:
    """Tables of functions by name, in a module or in its classes."""
    for x in list(vars(module).values()):
        if isinstance(x, dict) and x and all(map(callable, x.values())):
            yield x
        with contextlib.suppress(AttributeError, TypeError):
            if isinstance(x._functions, dict):
                yield x._functions


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    """Which adapters a test calls."""
    ours.called.clear()
    yield
    RESULTS[item.nodeid]["called"] = sorted(ours.called)


def pytest_runtest_logreport(report: Any) -> None:
    """How a test ended: the worst of its parts."""
    entry = RESULTS.setdefault(report.nodeid, {"outcome": "passed", "message": ""})
    if report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
        entry.update(outcome=report.outcome, message=text)


def pytest_sessionfinish(session: Any) -> None:
    """The results of all tests."""
    path = session.config.getoption("--peer-results")
    if path is not None:
        Path(path).write_text(json.dumps(RESULTS), encoding="utf-8")
