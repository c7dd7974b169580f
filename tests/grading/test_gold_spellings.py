"""Published references: every spelling is right, no plausible wrong answer is."""

import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxrl_reason.grading.answer_policy import AnswerPolicy
from jaxrl_reason.grading.final_answer import RIGHT, grade_final_answer

from .gold_spellings import right_spellings, wrong_answers

FILES = {
    "gsm8k/test.jsonl": AnswerPolicy(),
    "math_eval/math500.jsonl": AnswerPolicy(),
    "math_eval/amc23.jsonl": AnswerPolicy(),
    "math_eval/aime24.jsonl": AnswerPolicy(leading_zeros=True),
}


def golds_of(path: Path) -> list[str]:
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [str(row["answer"]).rpartition("####")[2].strip() for row in rows]


@pytest.mark.parametrize("name", FILES)
def test_every_spelling_of_a_reference_is_right(
    name: str, shared_file: Callable[[str], Path]
) -> None:
    refused = [
        (gold, response)
        for gold in golds_of(shared_file(f"data/{name}"))[:500]
        for response in right_spellings(
            gold.replace(",", "") if "gsm" in name else gold
        )
        if grade_final_answer(response, gold, policy=FILES[name]).outcome != RIGHT
    ]
    assert refused == []


def test_no_plausible_wrong_answer_is_right(shared_file: Callable[[str], Path]) -> None:
    golds = [
        (gold, policy)
        for name, policy in FILES.items()
        for gold in golds_of(shared_file(f"data/{name}"))[:600]
    ]
    rng = random.Random(0)
    accepted, tried = [], 0
    for gold, policy in golds:
        for answer in itertools.islice(wrong_answers(gold, rng), 5):
            response = rf"\boxed{{{answer}}}"
            grade = grade_final_answer(response, gold, policy=policy)
            accepted += [(gold, answer)] * (grade.outcome == RIGHT)
            tried += 1
    assert tried > 5000
    assert accepted == []


def test_5000_gsm8k_answers_take_less_than_2_seconds(
    shared_file: Callable[[str], Path],
) -> None:
    lines = shared_file("data/gsm8k/train.jsonl").read_text("utf-8").splitlines()[:5000]
    answers = [json.loads(line)["answer"] for line in lines]
    golds = [answer.rpartition("####")[2].strip() for answer in answers]
    start = time.process_time()
    for answer, gold in zip(answers, golds, strict=True):
        assert grade_final_answer(answer, gold).outcome == RIGHT
    assert time.process_time() - start < 2
