"""The Countdown grader: verdicts, hostile answers, the old scores, time."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.grading.countdown_grader import (
    CountdownGrade,
    countdown_score,
    grade,
    grade_expression,
)

from .hostile import rows_of, text_of

HOSTILE = Path(__file__).with_name("hostile.jsonl")
NUMBERS = [3, 5, 7]


def in_tags(answer: str) -> str:
    return f"some thoughts </think> <answer> {answer} </answer>"


def test_verdicts_by_hand() -> None:
    right = CountdownGrade(True, "3 * 5 + 7", "")
    assert grade(in_tags("3 * 5 + 7"), NUMBERS, 22) == right
    assert grade(in_tags("7+5*3"), NUMBERS, 22).correct
    assert grade(in_tags("3 * 5 + 7"), NUMBERS, 23).reason == "worth 22, not 23"
    assert grade(in_tags("3 / 7 * 5"), NUMBERS, 2).reason == "worth 15/7, not 2"
    assert "given: 3 5 7" in grade(in_tags("3 * 5"), NUMBERS, 15).reason
    assert "numbers used" in grade(in_tags("3 * 5 + 7 - 7"), NUMBERS, 15).reason
    assert grade("3 * 5 + 7", NUMBERS, 22).parsed is None
    assert grade(in_tags("3 * 5 + 7 = 22"), NUMBERS, 22).correct
    assert grade(in_tags(r"3 \times 5 + 7"), NUMBERS, 22).correct
    assert grade(in_tags("3×5+7 = 22"), NUMBERS, 22).correct
    for wrong in (
        "3 * 5 + 7 = 23",
        "22 = 3 * 5 + 7",
        "3 * 5 = 15 + 7",
        "= 22",
        "22 = 22",
    ):
        assert not grade(in_tags(wrong), NUMBERS, 22).correct


def test_an_answer_inside_reasoning_does_not_count() -> None:
    inside = "<think> <answer> 3 * 5 + 7 </answer> </think>"
    assert not grade(inside, NUMBERS, 22).correct
    assert grade(inside, NUMBERS, 22, reasoning=False).correct
    bare = "<answer> 3 * 5 + 7 </answer>"
    assert grade(bare, NUMBERS, 22).correct
    assert not grade(bare, NUMBERS, 22, reasoning=True).correct


def test_fractions_on_the_way_are_exact() -> None:
    # 8 / (3 - 8 / 3) = 24 fails in floats by 3e-14.
    assert grade(in_tags("8 / (3 - 8 / 3)"), [8, 3, 8, 3], 24).correct
    # Within the 1e-5 of the original, and wrong.
    close = in_tags("3 + 1 / 1000000")
    assert not grade(close, [3, 1, 1000000], 3).correct


def test_repeated_numbers_are_counted() -> None:
    assert grade(in_tags("4 + 4 + 2"), [4, 2, 4], 10).correct
    assert not grade(in_tags("4 + 2 + 2 + 2"), [4, 2, 4], 10).correct
    assert not grade(in_tags("4 + 4 + 2"), [4, 2], 10).correct


def test_the_last_answer_counts() -> None:
    wrong, right = "<answer>3</answer>", "<answer>3*5+7</answer>"
    assert grade(wrong + right, NUMBERS, 22).correct
    assert not grade(right + wrong, NUMBERS, 22).correct
    assert grade(right + "<answer>3", NUMBERS, 22).correct
    assert not grade("</answer>3*5+7<answer>", NUMBERS, 22).correct


@pytest.mark.parametrize("row", rows_of(HOSTILE, "countdown"), ids=lambda r: r["why"])
def test_hostile_answers(row: dict[str, Any], tmp_path: Path) -> None:
    given_, answer = row["input"], text_of(row["input"]["response"])
    start = time.process_time()
    verdicts = [
        grade_expression(answer, given_["numbers"], given_["target"]),
        grade(in_tags(answer), given_["numbers"], given_["target"]),
    ]
    assert time.process_time() - start < 1.0
    for verdict in verdicts:
        assert verdict.correct is (row["expected"] == "correct")
        assert verdict.correct or verdict.reason
        assert verdict.parsed is None or len(verdict.parsed) <= 200
    assert not Path("PWNED").exists()


def test_no_shared_row_is_missing_here(shared_file: Callable[[str], Path]) -> None:
    shared = rows_of(shared_file("reference/hostile_inputs.jsonl"), "countdown")
    here = rows_of(HOSTILE, "countdown")
    assert [row for row in shared if row not in here] == []


def test_rows_that_cannot_be_judged() -> None:
    assert grade(in_tags("3"), [], 3).reason == "the puzzle has no numbers"
    assert not grade(None, NUMBERS, 22).correct  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * 25_000,
        "</answer>" * 22_000,
        "<answer>1</answer>" * 11_000,
        "<answer></answer" * 12_500,
        "<" * 200_000,
        "<answer>" + "(" * 200_000 + "</answer>",
        "<answer>" + " " * 200_000 + "</answer>",
        "<answer>" + "9" * 200_000 + "</answer>",
        "<answer>" + "9**" * 70_000 + "9</answer>",
        "\n" * 200_000,
    ],
    ids=range(10),
)
def test_time_is_linear(text: str) -> None:
    start = time.process_time()
    assert not grade(text, NUMBERS, 22).correct
    assert countdown_score("Assistant:" + text, NUMBERS, 22) < 1
    assert time.process_time() - start < 1.0


# The scores of the original, numbers [19, 36, 55, 7] and target 65.
ORIGINAL = {
    "ok": ("<answer>55 + 36 - 19 - 7</answer>", 1.0),
    "wrong": ("<answer>55 + 36 + 19 + 7</answer>", 0.1),
    "subset": ("<answer>55 + 36 - 19</answer>", 0.1),
    "eqsign": ("<answer>55 + 36 - 19 - 7 = 65</answer>", 0.1),
    "div0": ("<answer>55 / (36 - 36) + 19 + 7</answer>", 0.1),
    "div0 of given numbers": ("<answer>(55 + 36) / (19 - 19 * 1) + 7</answer>", 0.1),
    "notag": ("55 + 36 - 19 - 7", 0.0),
    "trail": ("<answer>55 + 36 - 19 - 7</answer>\nDone.", 0.0),
    "earlier line": ("<think>so\nand so</think>\n<answer>55+36-19-7</answer>", 1.0),
    "last of two": ("<answer>1</answer> <answer>55+36-19-7</answer>", 1.0),
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_scores_of_the_original(name: str) -> None:
    text, score = ORIGINAL[name]
    numbers = [19, 36, 55, 7]
    for marker in ("User: x\nAssistant: ", "<|im_start|>assistant\n"):
        assert countdown_score(marker + text, numbers, 65) == score
    assert countdown_score(text, numbers, 65) == 0.0


def test_text_after_the_first_marker_only() -> None:
    text = "Assistant: a\nAssistant: <answer>3*5+7</answer>"
    assert countdown_score(text, NUMBERS, 22) == 1.0
    assert countdown_score("<answer>3*5+7</answer> Assistant:", NUMBERS, 22) == 0.0
    assert countdown_score("Assistant: <answer>3</answer>", NUMBERS, 3) == 0.1
    free = countdown_score("Assistant: <answer>3</answer>", [1], 3, format_score=0.0)
    assert free == 0.0


@pytest.mark.parametrize(
    ("answer", "numbers", "target"),
    [
        ("3**4", [3, 4], 81),
        ("7//2", [7, 2], 3),
        ("1.5*2", [1, 5, 2], 3),
        ("-3+5", [3, 5], 2),
        ("3+1/1000000", [3, 1, 1000000], 3),
    ],
)
def test_what_only_the_original_accepts(
    answer: str, numbers: list[int], target: int
) -> None:
    text = f"Assistant: <answer>{answer}</answer>"
    assert countdown_score(text, numbers, target) == 0.1


@pytest.mark.parametrize("answer", ["03+4", "(3)(4)", "3 4", "9**9**9", "3+4=7"])
def test_what_the_original_refuses_too(answer: str) -> None:
    numbers = sorted(int(digits) for digits in re.findall(r"\d+", answer))
    for target in (7, 12, 34):
        text = f"Assistant: <answer>{answer}</answer>"
        assert countdown_score(text, numbers, target) == 0.1
