"""Tests of programs, taken apart; programs and outputs found in text."""

import json
from collections.abc import Mapping

import pytest

from jaxrl_reason.grading.code_grader import find_program, same_json, same_output
from jaxrl_reason.grading.code_tests import TestsRefused, assert_tests


def program_side(text: str) -> str:
    return "\n".join(step for _, step in assert_tests([text]).steps)


@pytest.mark.parametrize(
    ("text", "steps", "rule", "expected"),
    [
        ("assert f(1) == 2", [("value", "f(1)")], "equal", "2"),
        ("assert [2] == f(1)", [("value", "f(1)")], "equal", "[2]"),
        ("assert f(1) is None", [("value", "f(1)")], "is", "None"),
        ("assert f(x=1)[0].y", [("value", "f(x=1)[0].y")], "true", ""),
        ("assert not S().f()", [("value", "S().f()")], "false", ""),
        ("assert f(1) == f(2)", [("value", "f(1)"), ("value", "f(2)")], "judge", ""),
        ("assert abs(f(1) - 2) < 1", [("value", "f(1)")], "judge", ""),
        ("assert f(1) == 2 and 1", [("value", "f(1)")], "judge", ""),
        ("assert f(1) != 2", [("value", "f(1)")], "judge", ""),
        ("assert set(f([i for i in (1, 2)])) == {1}", None, "judge", ""),
        (
            "r = f(1)\nassert r == 2",
            [("run", "r = f(1)"), ("value", "r")],
            "equal",
            "2",
        ),
    ],
)
def test_two_halves(
    text: str, steps: list[tuple[str, str]] | None, rule: str, expected: str
) -> None:
    found = assert_tests([text])
    assert steps is None or list(found.steps) == steps
    assert [(check.rule, check.expected) for check in found.checks] == [
        (rule, expected)
    ]


def test_the_program_gets_no_expected_value() -> None:
    text = (
        "import math\nwanted = 12345\ndata = [1, 2]\n"
        "def close(a, b):\n    return abs(a - b) < 54321\n"
        "class_of = f(data)\n"
        "assert f(data) == wanted\nassert close(f(3), 67890)\nassert f(1) == 99999\n"
        "assert f(2) in (11111, 22222), 'not 33333'"
    )
    side = program_side(text)
    for number in (12345, 54321, 67890, 99999, 11111, 22222, 33333):
        assert str(number) not in side
    assert "data = [1, 2]" in side
    assert assert_tests([text]).names == ("f",)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("x = [1]\nassert f(x) is None\nassert x == [1, 2]", "x", "[1, 2]"),
        ("x = [1]\nk = f(x)\nassert x[:k] == [2]", "x[:k]", "[2]"),
        ("x = [1]\nassert f(x) == 2\nx = [3]\nassert len(x) == 1", None, ""),
        ("x = [1]\nassert f(x) == 2\nassert f(3) == x", "f(3)", ""),
    ],
)
def test_what_the_program_was_given_is_asked_of_it(
    text: str, value: str | None, expected: str
) -> None:
    """A right program changes x in place; the judge has an x of its own."""
    found = assert_tests([text])
    asked = [step for kind, step in found.steps if kind == "value"]
    assert asked[-1] == (value or "f(x)")
    assert found.checks[-1].expected == expected
    assert found.names == ("f",)


def test_the_forms_of_public_sets() -> None:
    humaneval = (
        "METADATA = {'author': 'x'}\n\ndef check(candidate):\n    '''Tests.'''\n"
        "    assert candidate([1.0], 0.5) == False\n    assert True\n"
    )
    found = assert_tests([humaneval], candidate="close")
    assert found.steps == (("value", "close([1.0], 0.5)"),)
    assert found.names == ("close",)
    pytests = (
        "from solution import f\ndef test_one():\n    x = f(1)\n    assert x == 2\n"
    )
    assert assert_tests([pytests]).names == ("f",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("assert f(", "tests must be Python"),
        ("for i in range(3):\n    assert f(i) == i", "got For"),
        ("assert all(f(i) == i for i in range(3))", "a call in a loop"),
        ("def right(x):\n    return f(x) == 3\nassert right(1)", "a helper of tests"),
        ("x = 3", "must hold at least one"),
        ("import numpy\nassert f(1) == 2", "standard library, got numpy"),
        ("assert _v0 == f(1)", "must not begin with _v"),
        ("print(f(1))", "got Expr"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(text: str, said: str) -> None:
    with pytest.raises(TestsRefused, match=said):
        assert_tests([text])


FENCED: Mapping[str, str | None] = {
    "```python\nx = 1\n```": "x = 1\n",
    "first\n```py\nx\n```\nthen\n```Python\ny\n```\nso\n```text\n3\n```": "y\n",
    "```\nx = 1\n```": "x = 1\n",
    "x = 1": "x = 1",
    "```python\nx\n```\nbetter:\n```python\ny": None,
    "```text\nx\n```": None,
    "<think>\n```python\nx\n```\n</think>\n```python\ny\n```": "y\n",
    "<think>\n```python\nx\n```": None,
    "": None,
}


@pytest.mark.parametrize("response", FENCED)
def test_the_program_of_a_response(response: str) -> None:
    assert find_program(response) == FENCED[response]


@pytest.mark.parametrize(
    ("said", "expected", "same"),
    [
        ("1\n2\n", "1\n2", True),
        (" 1 2 \n\n\n", "1 2", True),
        ("1  2", "1 2", True),
        ("2.50 x", "2.5 x", True),
        ("1 2", "1\n2", False),
        ("1\n\n2", "1\n2", False),
        ("YES", "yes", False),
        ("0.33333333", "0.33333334", False),
        ("nan", "NaN", False),
        ("1e400", "2e400", False),
        ("", "1", False),
        ("9" * 5000, "9" * 5001, False),
    ],
)
def test_outputs(said: str, expected: str, same: bool) -> None:
    assert same_output(said, expected) is same


def test_values_of_json() -> None:
    wanted = json.loads('{"1": [2, 0.30000000000000004, null, true]}')
    assert same_json({1: (2, 0.3, None, True)}, wanted)
    assert same_json([2.0], [2])
    for wrong in ({1: (2, 0.3, None, 1)}, {1: (2, 0.31, None, True)}, {}, [2], "x"):
        assert not same_json(wrong, wanted)
