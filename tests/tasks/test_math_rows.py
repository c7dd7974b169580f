"""Rows of MATH, Minerva, OlympiadBench, AIME: the answer, and what has none."""

from typing import Any

import pytest

from jaxrl_reason.tasks.benchmarks import BENCHMARKS
from jaxrl_reason.tasks.question_rows import QuestionFileError
from tests.tasks.test_questions import Bytes

ROWS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "math",
        {"problem": "?", "solution": r"$\boxed{1}$, no: $\boxed{\frac12}$."},
        r"\boxed{0.5}",
        r"\boxed{1}",
    ),
    (
        "minerva",
        {"problem": "?", "solution": r"It is \boxed{3e8} m/s.", "type": "physics"},
        r"\boxed{3 \times 10^{8}}",
        r"\boxed{3 \times 10^{7}}",
    ),
    (
        "olympiad",
        {"question": "?", "final_answer": ["$2$", "-3"], "context": "Let x be real."},
        r"\boxed{-3, 2}",
        r"\boxed{2}",
    ),
    (
        "olympiad",
        {"question": "?", "final_answer": [r"$\frac{1}{3}$"], "subfield": "Algebra"},
        r"\boxed{1/3}",
        r"\boxed{0.333}",
    ),
    ("math", {"Problem": "?", "Answer": 204}, r"\boxed{204}", r"\boxed{203}"),
]


@pytest.mark.parametrize(("name", "row", "right", "wrong"), ROWS)
def test_rows(name: str, row: dict[str, Any], right: str, wrong: str) -> None:
    benchmark = BENCHMARKS[name]
    (question,) = benchmark.questions([("line 1", row)])
    task = benchmark.task(Bytes())
    assert question.unreadable(task.policy) is None
    assert task.grade(question, right, False).correct
    assert not task.grade(question, wrong, False).correct
    assert question.question.startswith(row.get("context", ""))
    assert question.kind == row.get("type", row.get("subfield", ""))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "?", "solution": "It is 3."}, "solution must hold the answer"),
        ({"problem": "?"}, "answer"),
        ({"answer": "3"}, "problem"),
        ({"problem": "?", "final_answer": [None]}, "final_answer must be text"),
    ],
)
def test_rows_without_answer(row: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionFileError, match=rf"line 1: .*{said}"):
        BENCHMARKS["math"].questions([("line 1", row)])
