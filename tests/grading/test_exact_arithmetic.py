"""The exact evaluator: its grammar, its refusals, its time."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.grading.exact_arithmetic import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_DIGITS,
    exact_value,
    examine,
)

SPACE = st.sampled_from(["", " ", "  ", "\t", "\n"])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction | None, int]:
    """A text, its value (None: division by zero) and how tightly it binds."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 120))
        return str(number), Fraction(number), 3
    operator = draw(st.sampled_from("+-*/"))
    rank = 1 if operator in "+-" else 2
    left, left_value, left_rank = draw(expressions(depth=depth - 1))
    right, right_value, right_rank = draw(expressions(depth=depth - 1))
    if left_rank < rank or draw(st.booleans()):
        left = f"({draw(SPACE)}{left}{draw(SPACE)})"
    if right_rank <= rank or draw(st.booleans()):
        right = f"({right})"
    text = f"{left}{draw(SPACE)}{operator}{draw(SPACE)}{right}"
    if left_value is None or right_value is None:
        return text, None, rank
    if operator == "/":
        return text, left_value / right_value if right_value else None, rank
    value = {
        "+": left_value + right_value,
        "-": left_value - right_value,
        "*": left_value * right_value,
    }[operator]
    return text, value, rank


# Other processes may hold the machine for longer than an example takes.
@hypothesis_settings(deadline=None)
@given(expressions())
def test_value_is_the_exact_one(case: tuple[str, Fraction | None, int]) -> None:
    text, value, _ = case
    assert exact_value(text) == value
    assert (examine(text).reason == "division by zero") == (value is None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", Fraction(7)),
        ("0", Fraction(0)),
        ("10 - 2 - 3", Fraction(5)),
        ("12 / 2 / 3", Fraction(2)),
        ("8 - 2 * 3", Fraction(2)),
        ("1 / 3 + 1 / 6", Fraction(1, 2)),
        (" ( ( 1 ) )\n", Fraction(1)),
        ("3 - 5", Fraction(-2)),
        ("1/3*3", Fraction(1)),
    ],
)
def test_by_hand(text: str, value: Fraction) -> None:
    assert exact_value(text) == value
    assert examine(text).reason == ""


def test_numbers_are_those_written() -> None:
    assert examine("(3 + 12) * 3 - 0").numbers == (3, 12, 3, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "()",
        "+",
        "-3",
        "+3",
        "3 - -5",
        "3 * (-5)",
        "3 + ",
        "* 3",
        "3 4",
        "(3)(4)",
        "3(4)",
        "(3)4",
        "03 + 4",
        "00",
        "3**4",
        "3 * * 4",
        "7//2",
        "7 / / 2",
        "1.5",
        ".5",
        "1,000",
        "1_0",
        "1e3",
        "0x7",
        "3 = 3",
        "3 + 4 = 7",
        "7 == 7",
        "x",
        "3 + four",
        "(3 + 4",
        "3 + 4)",
        ")3(",
        "3 % 2",
        "3 ^ 2",
        "3 | 4",
        "1 << 2",
        "~3",
        "3!",
        "[3]",
        "{3}",
        "3;4",
        "3#",
        "3 \u00d7 4",
        "3 \u2212 4",
        "\uff13",
        "3\uff17",
        "\u0663",
        "3\u00a0+ 4",
        "\u200b3",
        "3\x00",
        "3\x0b+ 4",
        "3 / 0",
        "3 / (4 - 4)",
        "0 / 0",
        "__import__('os')",
    ],
)
def test_everything_else_has_a_reason_and_no_value(text: str) -> None:
    evaluation = examine(text)
    assert evaluation.value is None
    assert evaluation.numbers == ()
    assert evaluation.reason
    assert exact_value(text) is None


def test_bounds() -> None:
    assert exact_value("1" * MAX_DIGITS) is not None
    assert exact_value("1" * (MAX_DIGITS + 1)) is None
    assert exact_value("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH) == 1
    assert exact_value("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1)) is None
    assert exact_value("1".ljust(MAX_CHARACTERS)) == 1
    assert exact_value("1".ljust(MAX_CHARACTERS + 1)) is None
    # The longest product there is stays small work.
    nines = "9" * MAX_DIGITS
    product = "*".join([nines] * (MAX_CHARACTERS // (MAX_DIGITS + 1)))
    assert exact_value(product) is not None


@hypothesis_settings(deadline=None)
@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    evaluation = examine(text)
    assert (evaluation.value is None) == bool(evaluation.reason)


@pytest.mark.parametrize("piece", ["(", "-", "9", "3+", "9**", " ", "1 ", "(1)", "x"])
def test_long_texts_take_no_time(piece: str) -> None:
    start = time.process_time()
    assert exact_value(piece * 200_000) is None
    assert time.process_time() - start < 1.0
