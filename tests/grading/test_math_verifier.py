"""Algebra in workers: the verdicts of this process, many at once, within bounds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.answer_policy import USUAL
from jaxrl_reason.grading.final_answer import WRONG, grade_final_answer
from jaxrl_reason.grading.math_verifier import MathVerifier

from .hostile import rows_of, text_of

OWN = Path(__file__).parent / "hostile.jsonl"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(deadline=20) as made:
        yield made


def test_the_verdicts_are_those_of_this_process(verifier: MathVerifier) -> None:
    pairs = [
        (r"2\sqrt{2}", r"\sqrt{8}", USUAL),
        ("p-q", "-q+p", USUAL),
        (r"\pi", r"\pi^{10^{10}}", USUAL),
        (r"\sqrt{3}", r"\sqrt{2}", USUAL),
    ]
    assert verifier.many(pairs) == [algebraically_equal(*pair) for pair in pairs]
    assert verifier.many(pairs) == [True, True, None, False]  # remembered
    assert verifier.counts == {"equal": 4, "unequal": 2, "unchecked": 2}


def test_500_answers_in_latex(verifier: MathVerifier) -> None:
    pairs = [
        (rf"\frac{{{n}x}}{{\sqrt{{{n}}}}}", rf"\sqrt{{{n}}}x", USUAL)
        for n in range(2, 502)
    ]
    start = time.monotonic()
    assert all(verifier.many(pairs))
    assert time.monotonic() - start < 15


def test_a_missed_deadline_is_wrong_and_counted_apart() -> None:
    with MathVerifier(deadline=1e-3) as hasty:
        grade = grade_final_answer(
            r"\boxed{((x+y)^{999})(x-y)^{999}}", "x+y", verify=hasty
        )
    assert (grade.outcome, grade.unchecked) == (WRONG, True)
    assert hasty.counts["unchecked"] == 1


def test_the_deadline_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="deadline must be above 0 seconds, got 0"):
        MathVerifier(deadline=0)


def test_hostile_answers_in_workers(
    verifier: MathVerifier, shared_file: Callable[[str], Path]
) -> None:
    shared = rows_of(shared_file("reference/hostile_inputs.jsonl"), "math")
    for row in shared + rows_of(OWN, "math"):
        gold, response = (text_of(row["input"][name]) for name in ("gold", "response"))
        start = time.monotonic()
        grade = grade_final_answer(response, gold, verify=verifier)
        assert (grade.outcome == "right") == (row["expected"] == "correct"), row
        assert time.monotonic() - start < 1, row["why"]
