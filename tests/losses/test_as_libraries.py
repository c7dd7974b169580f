"""docs/losses/conventions.md: each line's call gives the published formula's number."""

import doctest
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses import library_formulas as formulas
from tests.losses.worked import EXAMPLES, close

PAGE = Path(__file__).parents[2] / "docs" / "losses" / "conventions.md"
STORED = json.loads(formulas.STORED.read_text(encoding="utf-8"))
COMPUTED = formulas.evaluate()


def lines() -> list[list[str]]:
    """The cells of every table line that begins with a case's name."""
    text = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [re.split(r" \| ", line[2:-2]) for line in text if line.startswith("| `")]
    return [[cell.strip("` ") for cell in row] for row in rows]


# case, whose, convention, call, number
SAME = {row[0]: row for row in lines() if len(row) == 5}
# case, whose, what it does, its number, call, our number, why not
OTHER = {row[0]: row for row in lines() if len(row) == 7}


def shown(value: Any) -> str:
    """A stored value as the page prints it: seven digits, at most four numbers."""
    flat = np.ravel(value).astype(float) + 0.0
    digits = ", ".join(f"{x:.7g}" for x in flat[:4])
    return digits + ", …" if len(flat) > 4 else digits


def evaluated() -> dict[str, Any]:
    """The value of each call, in the scope of the page's own code."""
    scope = {name: getattr(lib, name) for name in lib.__all__}
    for example in doctest.DocTestParser().get_examples(PAGE.read_text("utf-8")):
        exec(example.source, scope)  # noqa: S102  the docs' own text
    calls = {name: row[3] for name, row in SAME.items()}
    calls |= {name: row[4] for name, row in OTHER.items()}
    values = {}
    for name, call in calls.items():
        try:
            values[name] = eval(call, scope)  # noqa: S307  lines of this file's tables
        except Exception as error:
            error.add_note(f"in the line of {name}: {call}")
            raise
    return values


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    # One program of constants, which XLA folds: a fifth of the time of each on its own.
    return jax.jit(evaluated)()


def test_every_line_has_one_case_and_every_case_one_line() -> None:
    names = [row[0] for row in lines()]
    assert len(names) == len(set(names))
    assert set(names) == set(SAME) | set(OTHER)
    assert set(SAME) == set(STORED["reproduced"]) == set(formulas.SAME)
    assert set(OTHER) == set(STORED["not_reproduced"]) == set(formulas.OTHER)


def test_the_stored_numbers_are_the_formulas() -> None:
    for name, value in COMPUTED["reproduced"].items():
        close(value, STORED["reproduced"][name], rtol=1e-12, atol=1e-12)
    for name, both in COMPUTED["not_reproduced"].items():
        for whose, value in both.items():
            stored = STORED["not_reproduced"][name][whose]
            close(value, stored, rtol=1e-12, atol=1e-12)


def test_the_formulas_are_the_worked_examples() -> None:
    stored = STORED["reproduced"] | {
        name: both["theirs"] for name, both in STORED["not_reproduced"].items()
    }
    cases = {**formulas.SAME, **formulas.OTHER}
    keys = {name: case.worked for name, case in cases.items() if case.worked}
    assert len(keys) > 80
    for name, key in keys.items():
        # GPG's example is the first group alone.
        expected = np.ravel(EXAMPLES[key])
        found = np.ravel(stored[name])[: len(expected)]
        close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SAME)
def test_the_call_gives_the_number(name: str, found: dict[str, Any]) -> None:
    expected = STORED["reproduced"][name]
    assert SAME[name][-1] == shown(expected)
    close(np.squeeze(found[name]), np.squeeze(expected))


@pytest.mark.parametrize("name", OTHER)
def test_the_nearest_call_gives_another_number(
    name: str, found: dict[str, Any]
) -> None:
    stored = STORED["not_reproduced"][name]
    _, _, _, theirs, _, ours, _ = OTHER[name]
    assert (theirs, ours) == (shown(stored["theirs"]), shown(stored["ours"]))
    close(np.squeeze(found[name]), np.squeeze(stored["ours"]))
    assert not np.allclose(stored["theirs"], stored["ours"], rtol=0.05, atol=0.01)
