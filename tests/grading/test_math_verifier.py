"""math-verify: what it may read, and the deadline."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxrl_reason.grading import math_verifier
from jaxrl_reason.grading.final_answer import grade_final_answer
from jaxrl_reason.grading.math_verifier import (
    MathVerifier,
    readable,
    verifier_available,
)

from .hostile import rows_of, text_of

needs_math = pytest.mark.skipif(
    not verifier_available(), reason="the extra 'math' is not installed"
)


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier(deadline=20) as made:
        yield made


@pytest.mark.parametrize(
    "text",
    [
        *(r"2\sqrt{2}", r"\frac{20000}{\pi}", r"1-12i", r"(0,9)\cup(9,36)", "x^{8}+x"),
        *(r"\{1+\sqrt{5},-2\}", r"\begin{pmatrix}-1/3\\2/3\end{pmatrix}", r"\cot x"),
    ],
)
def test_answers_may_be_read(text: str) -> None:
    assert readable(text)


@pytest.mark.parametrize(
    "text",
    [
        *("eval(input())", "lambda: 4", r"\input{/etc/passwd}", "().__class__", "4!"),
        *(
            "9^{9^{9}}",
            "x^{99999}",
            r"\binom{100}{50}",
            r"\int x",
            r"\sum",
            r"\text{a}",
        ),
        *("9" * 21, "a\nb", "'4'", '"4"', "x@y", "$4$", "4;5", r"\sqrtx"),
    ],
)
def test_nothing_else_is_read(text: str) -> None:
    assert not readable(text)


def test_reading_takes_linear_time() -> None:
    start = time.monotonic()
    for text in ("a+" * 500_000 + "'", "9" * 10**6, r"\pi " * 200_000 + "!"):
        assert not readable(text)
    assert time.monotonic() - start < 5


def test_without_the_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math_verifier, "verifier_available", lambda: False)
    with pytest.raises(ImportError, match="pip install"):
        MathVerifier()


def test_the_deadline_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="deadline must be above 0 seconds, got 0"):
        MathVerifier(deadline=0)


@needs_math
@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("p-q", "-q+p", True),
        (r"(3,\frac{\pi}{2})", r"(3,\pi/2)", True),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{2}}", False),
        (r"(0,9)\cup(9,36)", r"(9,36)\cup(0,9)", True),
        ("(a+5)(b+2)", "(b+2)(a+5)", True),
    ],
)
def test_algebra(verifier: MathVerifier, gold: str, answer: str, equal: bool) -> None:
    assert verifier(gold, answer) is equal


@needs_math
def test_what_math_verify_takes_and_should_not(verifier: MathVerifier) -> None:
    before = verifier.counts["refused"]
    assert verifier("3R^{2}", "3r^{2}") is False
    assert verifier(r"\frac{\pi}{3}", "1.0471975512") is False
    assert verifier("x", r"\input{/etc/passwd}") is False
    assert verifier.counts["refused"] == before + 3


@needs_math
def test_a_missed_deadline_is_a_failure_and_the_next_pair_gets_a_new_worker() -> None:
    with MathVerifier(deadline=1e-3) as hasty:
        assert hasty("(x+y)^{9}(x-y)^{9}", "(x-y)^{9}(y+x)^{9}") is None
        assert hasty.counts["failed"] == 1
        hasty.deadline = 30
        assert hasty("p-q", "-q+p") is True


@needs_math
def test_hostile_answers_with_algebra(
    verifier: MathVerifier, shared_file: Callable[[str], Path]
) -> None:
    for row in rows_of(shared_file("reference/hostile_inputs.jsonl"), "math"):
        gold, response = (
            text_of(row["input"]["gold"]),
            text_of(row["input"]["response"]),
        )
        grade = grade_final_answer(response, gold, verify=verifier)
        assert (grade.outcome == "right") == (row["expected"] == "correct"), row["why"]
