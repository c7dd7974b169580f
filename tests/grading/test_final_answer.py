"""The grader of final answers: verdicts and hostile answers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.grading.answer_policy import AnswerPolicy
from jaxrl_reason.grading.answers import last_number
from jaxrl_reason.grading.final_answer import grade_final_answer, unreadable_gold

from .hostile import rows_of, text_of

OWN = Path(__file__).parent / "hostile.jsonl"
# Characters that are no part of an answer make it wrong, not ungraded: a model must
# not escape a grade by writing them.
GRADED_WRONG = {"\\boxed{4\u200b}", "\\boxed{\u202e4\u202c}", "\ud800\\boxed{4}"}


def check(rows: list[dict[str, Any]], folder: Path) -> None:
    for row in rows:
        gold, response = (text_of(row["input"][name]) for name in ("gold", "response"))
        start = time.monotonic()
        grade = grade_final_answer(response, gold)
        assert time.monotonic() - start < 1, row["why"]
        outcomes = {"correct": "right", "incorrect": "wrong"}
        expected = outcomes.get(row["expected"], "failed")
        if response in GRADED_WRONG:
            expected = "wrong"
        assert grade.outcome == expected, row
    assert not list(folder.iterdir())  # nothing was written


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hostile_answers(shared_file: Callable[[str], Path], empty: Path) -> None:
    check(rows_of(shared_file("reference/hostile_inputs.jsonl"), "math"), empty)


def test_own_hostile_answers(empty: Path) -> None:
    rows = rows_of(OWN, "math")
    assert len(rows) > 200
    check(rows, empty)


@pytest.mark.parametrize(
    ("response", "gold", "outcome"),
    [
        ("#### 18", "18", "right"),
        ("#### $18.00", "18", "right"),
        ("#### **18**", "18", "right"),
        ("#### 18 \\text{ dollars}", "18", "right"),
        ("#### 18 dollars", "18", "wrong"),
        ("#### 18 or 19", "18", "wrong"),
        ("#### 18, 19", "18", "wrong"),
        ("#### 17.999999", "18", "wrong"),
        ("#### 1e400", "18", "wrong"),
        ("#### None", "None", "right"),
        ("#### 0", "None", "wrong"),
        ("#### None", "0", "wrong"),
        ("The answer is 18", "18", "wrong"),
        ("", "18", "wrong"),
        ("#### 18", "", "failed"),
        ("#### 18", "(", "failed"),
        ("\ud800 #### 18", "18", "wrong"),
        (None, "18", "failed"),
        ("#### 18", None, "failed"),
    ],
)
def test_outcomes(response: Any, gold: Any, outcome: str) -> None:
    assert grade_final_answer(response, gold).outcome == outcome


def test_the_parsed_answer_is_the_normal_form() -> None:
    assert grade_final_answer("#### 18.50", "18").parsed == "37/2"
    assert grade_final_answer("no", "18").parsed is None
    long = grade_final_answer("#### " + "9" * 1000, "18").parsed
    assert long is not None
    assert len(long) < 200


def test_golds_that_cannot_be_graded_are_found_before_any_response() -> None:
    for gold in (r"\sqrt[3]{2}", "18", "None", r"x+\frac{1}{y}"):
        assert unreadable_gold(gold) is None
    for gold in ("(1, 2", "", None, 4, r"\int f"):
        assert unreadable_gold(gold)


def test_reasoning_is_left_out() -> None:
    inside = r"hm \boxed{9} </think> That is all."
    assert grade_final_answer(inside, "9").outcome == "wrong"
    assert grade_final_answer(inside, "9", reasoning=False).outcome == "right"
    plain = r"\boxed{9}"
    assert grade_final_answer(plain, "9").outcome == "right"
    assert grade_final_answer(plain, "9", reasoning=True).outcome == "wrong"


def test_another_extraction_and_leading_zeros() -> None:
    grade = grade_final_answer("It is 025.", "25", extract=last_number)
    assert grade.outcome == "wrong"
    grade = grade_final_answer(
        "It is 025.", "25", extract=last_number, policy=AnswerPolicy(leading_zeros=True)
    )
    assert grade.outcome == "right"


@pytest.mark.parametrize(
    ("verdict", "outcome"), [(True, "right"), (False, "wrong"), (None, "wrong")]
)
def test_a_check_that_gives_up_is_wrong_and_says_so(
    verdict: bool | None, outcome: str
) -> None:
    asked = []

    def verify(gold: str, answer: str, policy: AnswerPolicy) -> bool | None:
        asked.append((gold, answer))
        return verdict

    grade = grade_final_answer(r"\boxed{\sqrt8}", r"2\sqrt{2}", verify=verify)
    assert grade.outcome == outcome
    assert grade.unchecked == (verdict is None)
    assert asked == [(r"2\sqrt{2}", r"\sqrt8")]


def test_algebra_never_sees_what_is_decided() -> None:
    def verify(gold: str, answer: str, policy: AnswerPolicy) -> bool | None:
        raise AssertionError("not to be asked")

    for response in (
        r"\boxed{17 \cdot 23}",
        r"\boxed{9^{9^{9}}}",
        r"\boxed{391}",
        "391",
    ):
        grade_final_answer(response, "391", verify=verify)


@pytest.mark.parametrize(
    "name",
    ["math_eval/math500.jsonl", "math_eval/amc23.jsonl", "math_eval/aime24.jsonl"],
)
def test_every_reference_answers_itself(
    name: str, shared_file: Callable[[str], Path]
) -> None:
    for line in shared_file(f"data/{name}").read_text("utf-8").splitlines():
        gold = json.loads(line)["answer"]
        grade = grade_final_answer(
            f"\\boxed{{{gold}}}", gold, policy=AnswerPolicy("aime" in name)
        )
        assert unreadable_gold(gold, AnswerPolicy("aime" in name)) is None
        assert grade.outcome == "right", gold
