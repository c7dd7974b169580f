"""Other libraries' tests with our functions, on a small library that stands here."""

import importlib
from pathlib import Path

import pytest

from experiments.conformance import peer_tests

LIBRARY = """
import does_not_exist
from does_not_exist.deeper import Base

class Mean(Base):
    def __call__(self, x, mask):
        return (x * mask).sum() / mask.sum() + 1  # wrong

@does_not_exist.remote
def name():
    return "small"
"""
TESTS = """
import pytest, torch
from library import Mean, name

def test_name():
    assert name() == "small"

@pytest.mark.parametrize("right", [True, False])
def test_mean(right):
    x = torch.tensor([[1.0, 5.0, 9.0]], dtype=torch.float64, device="cuda")
    x.requires_grad_(True)
    mask = torch.tensor([[1, 1, 0]]).to("cuda")
    mean = Mean()(x, mask)
    mean.backward()
    assert mean.dtype == x.grad.dtype == torch.float64
    assert x.grad.tolist() == [[0.5, 0.5, 0.0]]
    assert (mean.item() == 3.0) is right

def test_nothing():
    assert True

def test_soft_mask():
    Mean()(torch.ones((1, 2)), torch.tensor([[1.0, 0.5]]))
"""
ADAPTERS = """
from experiments.conformance.bridge import ours

TESTS, STAND_INS, ON_CPU = ("test_small.py",), ("does_not_exist",), True
NOT_RUN = ()

def mean(self, x, mask):
    return ours.token_mean(x, mask, ours.batch_counts(mask))

def adapters():
    return {"library:Mean.__call__": mean}
"""


def test_a_small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="torch is not installed: the extra is torch")
    files = {"library": LIBRARY, "test_small": TESTS, "small_adapters": ADAPTERS}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    own, ours = (
        peer_tests.run("small_adapters", tmp_path, own) for own in (True, False)
    )
    library = peer_tests.sort("small", "1", ours, own, {"name": "a name"}, {})
    assert library.others == {"a name": ["test_small.py::test_name"]}
    # With theirs the mean is wrong, and what expects the wrong one fails with ours.
    right = "test_small.py::test_mean[True]"
    assert library.passed == [right]
    assert ours[right]["called"] == ["batch_counts", "token_mean"]
    assert (own[right]["outcome"], own[right]["called"]) == ("failed", [])
    failed = dict(library.failed)
    assert failed.pop("test_small.py::test_mean[False]").startswith("assert")
    assert "bool or 0/1" in failed.pop("test_small.py::test_soft_mask")
    assert failed == {"test_small.py::test_nothing": "calls nothing of this library"}
    assert library.number == 5


def test_outcomes_are_sorted() -> None:
    def result(outcome: str, *called: str) -> dict[str, object]:
        return {"outcome": outcome, "message": "one\ntwo", "called": called}

    ours = {
        "passes": result("passed", "gae"),
        "fails": result("failed", "gae"),
        "registry": result("passed"),
        "other form": result("failed", "gae"),
        "gpu": result("failed"),
    }
    own = {name: result("failed" if name == "gpu" else "passed") for name in ours}
    others, missing = {"registry": "a registry"}, {"form": "another form"}
    library = peer_tests.sort("one", "1.0", ours, own, others, missing)
    assert (library.passed, library.theirs) == (["passes"], ["gpu"])
    assert library.failed == {"fails": "one"}
    lines = peer_tests.table([library]).splitlines()
    assert lines[2] == "| **one** (1.0) | 5 | 1 | 1 | 1 | 1 | 1 |"
    assert lines[-2:] == ["| one | 1 | a registry |", "| one | 1 | another form |"]


def test_the_page_has_a_place_for_the_numbers(root: Path) -> None:
    text = (root / "docs" / "conformance.md").read_text(encoding="utf-8")
    table = text.split(peer_tests.START)[1].split(peer_tests.END)[0]
    for name in peer_tests.LIBRARIES.values():
        assert f"| **{name}** (" in table


@pytest.mark.parametrize("peer", peer_tests.LIBRARIES)
def test_every_test_that_is_left_out_has_its_reason(peer: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: the extra is torch")
    adapters = importlib.import_module(f"experiments.conformance.peer_tests_{peer}")
    assert adapters.TESTS
    for place, adapter in adapters.adapters().items():
        module, _, name = place.partition(":")
        assert module
        assert name
        assert callable(adapter)
    assert all({**adapters.OTHERS, **adapters.MISSING}.values())
