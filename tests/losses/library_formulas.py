"""The conventions of docs/losses/conventions.md, in NumPy float64, nothing of ours.

A case is one line of the page: a function that evaluates the library's or the paper's
formula as it is published, on the fixture of `worked` and that of the page.
`python -m tests.losses.library_formulas` writes their values to library_numbers.json.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.losses.worked import ADVANTAGES, MASK, NEW, OLD

STORED = Path(__file__).with_name("library_numbers.json")


class Case(NamedTuple):
    """One line: its formula, and the key of its worked example where there is one."""

    formula: Callable[[], Any]
    worked: str | None


# What arguments of ours reproduce, and what none do: the latter give (theirs, ours).
SAME: dict[str, Case] = {}
OTHER: dict[str, Case] = {}


def same(name: str, worked: str | None = None) -> Callable:
    """Registers a convention that a call of ours reproduces."""
    return _into(SAME, name, worked)


def other(name: str, worked: str | None = None) -> Callable:
    """Registers a form that ours does not take, with the value of ours beside it."""
    return _into(OTHER, name, worked)


def _into(cases: dict[str, Case], name: str, worked: str | None) -> Callable:
    def register(formula: Callable) -> Callable:
        if name in SAME or name in OTHER:
            raise ValueError(f"a case's name must be new, got {name}")
        cases[name] = Case(formula, worked)
        return formula

    return register


# One advantage per token, and what the formulas are made of.
A = ADVANTAGES[:, None] * MASK
LENGTHS = MASK.sum(1)
RATIO = np.exp(np.clip(NEW - OLD, -20, 20)) * MASK


def token_mean(x: np.ndarray, mask: np.ndarray = MASK) -> float:
    return np.where(mask > 0, x, 0).sum() / mask.sum()


def sequence_mean(x: np.ndarray, mask: np.ndarray = MASK) -> float:
    inside = mask.sum(1) > 0
    sums = np.where(mask > 0, x, 0).sum(1)
    return np.mean(sums[inside] / mask.sum(1)[inside])


def log_sigmoid(x: float) -> float:
    return -np.log1p(np.exp(-x))


def k3(new: np.ndarray, ref: np.ndarray) -> np.ndarray:
    return np.exp(ref - new) - (ref - new) - 1


def evaluate() -> dict[str, Any]:
    """All cases as what goes into the file."""
    # Imported for what they register.
    for topic in ("advantages", "losses", "kl", "pairs", "recent"):
        importlib.import_module(f"tests.losses.library_{topic}")

    plain = {name: np.asarray(c.formula()).tolist() for name, c in SAME.items()}
    pairs = {}
    for name, c in OTHER.items():
        theirs, ours = (np.asarray(value).tolist() for value in c.formula())
        pairs[name] = {"theirs": theirs, "ours": ours}
    return {"reproduced": plain, "not_reproduced": pairs}


if __name__ == "__main__":
    from tests.losses.library_formulas import evaluate as imported

    STORED.write_text(json.dumps(imported(), indent=1) + "\n", encoding="utf-8")
