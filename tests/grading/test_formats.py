"""Tags: the last pair, the order and number of all, in linear time."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.grading.final_answer import grade_final_answer
from jaxrl_reason.grading.formats import (
    after_reasoning,
    last_tagged,
    think_answer_format,
)

from .hostile import rows_of, text_of

HOSTILE = Path(__file__).with_name("hostile.jsonl")
PIECES = [
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "<",
    "answer>",
    "x",
    " ",
    "\n",
]


@pytest.mark.parametrize("row", rows_of(HOSTILE, "format"), ids=lambda r: r["why"])
def test_hostile_formats(row: dict[str, Any]) -> None:
    response = text_of(row["input"]["response"])
    start = time.process_time()
    kept = think_answer_format(response, opened=False)
    assert time.process_time() - start < 1.0
    assert kept is (row["expected"] == "correct")


def test_shared_hostile_formats(shared_file: Callable[[str], Path]) -> None:
    for row in rows_of(shared_file("reference/hostile_inputs.jsonl"), "format"):
        gold, response = row["input"]["gold"], text_of(row["input"]["response"])
        start = time.process_time()
        kept = think_answer_format(response, opened=False)
        answer = last_tagged(response, "answer") if kept else None
        grade = grade_final_answer(response, gold, extract=lambda _, said=answer: said)
        right = kept and grade.outcome == "right"
        assert right is (row["expected"] == "correct"), row["why"]
        assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a </think> <answer> b </answer>", True),
        ("</think><answer></answer>", True),
        ("a </think>\n\n<answer> b\nc </answer>\n", True),
        ("<think> a </think> <answer> b </answer>", False),
        ("a <answer> b </answer>", False),
        ("a </think> <answer> b", False),
        ("a </think> b </answer>", False),
        ("a </think> so <answer> b </answer>", False),
        ("a <answer> b </answer> </think>", False),
        ("a <answer> b </think> </answer>", False),
        ("a </think> </answer> <answer>", False),
        ("a </think> </think> <answer> b </answer>", False),
        ("a </think> <answer> b </answer> <answer> c </answer>", False),
        ("a </think> <answer> b </answer> c", False),
        ("", False),
    ],
)
def test_the_prompts_opening_tag_counts(text: str, kept: bool) -> None:
    assert think_answer_format(text) is kept
    assert think_answer_format("<think>" + text, opened=False) is kept


def test_unopened_reasoning_is_refused_where_the_prompt_does_not_open_it() -> None:
    text = "a </think> <answer> b </answer>"
    assert not think_answer_format(text, opened=False)
    assert not think_answer_format("so <think>" + text, opened=False)
    assert think_answer_format("\n <think>" + text, opened=False)


# Other processes may hold the machine for longer than an example takes.
@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_last_tagged_is_the_last_match_of_the_regex(text: str) -> None:
    matches = re.findall("<answer>(.*?)</answer>", text, re.DOTALL)
    assert last_tagged(text, "answer") == (matches[-1] if matches else None)


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_format_is_that_of_a_regex(text: str) -> None:
    pattern = r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*"
    match = re.fullmatch(pattern, text, re.DOTALL)
    tags = ("<think>", "</think>", "<answer>", "</answer>")
    once = all(text.count(tag) == 1 for tag in tags)
    assert think_answer_format(text, opened=False) is (match is not None and once)


@pytest.mark.parametrize("piece", ["<answer>", "</answer>", "<think>", "</think>", "<"])
def test_long_texts_take_no_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    assert last_tagged(text, "answer") is None
    assert not think_answer_format(text)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("a </think> b", None, " b"),
        ("a </think> b", True, " b"),
        ("a </think> b", False, "a </think> b"),
        ("<think> a </think> b </think> c", None, " c"),
        ("<think> a", None, None),
        ("a", True, None),
        ("a", None, "a"),
        ("<think> a </think> b <think> c", None, None),
    ],
)
def test_what_follows_the_reasoning(
    text: str, opened: bool | None, expected: str | None
) -> None:
    assert after_reasoning(text, opened) == expected
