"""Question files: what is read, and errors that name file and line."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxrl_reason.tasks.question_files import (
    SEED,
    QuestionFileError,
    gsm8k_questions,
    gsm_plus_questions,
    problem_questions,
)
from jaxrl_reason.tasks.question_sources import MakeQuestions, load_questions
from jaxrl_reason.tasks.questions import Question
from tests.grading.hostile import rows_of, text_of


def read(path: Path, make: MakeQuestions) -> list[Question]:
    return list(load_questions(path, make).questions)


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_gsm8k(tmp_path: Path) -> None:
    row = {"question": "How\u2028many?", "answer": "1 + 1 = 2\n#### 1,072"}
    path = write(tmp_path, row, "", row)
    first, second = read(path, gsm8k_questions)
    assert (first.problem_id, second.problem_id) == (0, 1)
    assert first.question == "How\u2028many?"
    assert first.answer == "1,072"


def test_problems_of_numbers_and_texts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"problem": "?", "answer": "\\frac{1}{2}", "level": 5},
        {"question": "?", "answer": 142.0},
    )
    assert [q.answer for q in read(path, problem_questions)] == [
        "\\frac{1}{2}",
        "142.0",
    ]


def variant(seed: str, kind: str, answer: str = "5") -> dict[str, str]:
    return {
        "question": f"{kind} of {seed}",
        "answer": answer,
        "perturbation_type": kind,
        "seed_question": seed,
        "seed_answer": "4",
    }


def test_gsm_plus_puts_every_seed_before_its_variants(tmp_path: Path) -> None:
    path = write(
        tmp_path, variant("A?", "one"), variant("B?", "one"), variant("A?", "two")
    )
    questions = read(path, gsm_plus_questions)
    assert [q.kind for q in questions] == [SEED, "one", "two", SEED, "one"]
    assert [q.seed_id for q in questions] == [None, 0, 0, None, 3]
    assert [q.problem_id for q in questions] == [0, 1, 2, 3, 4]
    assert questions[0].answer == "4"


GOOD = {"problem": "?", "answer": "4"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "?"}, "answer must be a field, got the fields 'problem'"),
        ({"problem": "?", "answer": None}, "answer must be text, got None"),
        ({"problem": "?", "answer": ""}, "answer must be text, got ''"),
        ({"problem": "?", "answer": True}, "answer must be text, got True"),
        ({"problem": "?", "answer": ["4"]}, "answer must be text"),
        ({"answer": "4"}, "question must be a field, got the fields 'answer'"),
        ('{"problem": "?", "answer": NaN}', "valid JSON, got NaN"),
        ('{"problem": "?", "answer": "4", "answer": "5"}', "'answer' twice"),
        ('{"problem": "\\ud800", "answer": "4"}', "surrogates not allowed"),
        ("[]", "a row must be a JSON object"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "ecursion"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, row: Any, said: str) -> None:
    path = write(tmp_path, GOOD, "", row)
    with pytest.raises(QuestionFileError, match=said) as error:
        read(path, problem_questions)
    assert str(error.value).startswith(f"{path}, line 3: ")


def test_a_gsm8k_answer_without_its_mark(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "?", "answer": "72"})
    with pytest.raises(QuestionFileError, match="line 1: answer must end in '#### num"):
        read(path, gsm8k_questions)


def test_gsm_plus_rows_that_contradict_each_other(tmp_path: Path) -> None:
    other = {**variant("A?", "two"), "seed_answer": "7"}
    path = write(tmp_path, variant("A?", "one"), other)
    with pytest.raises(QuestionFileError, match="line 2: rows of one seed question"):
        read(path, gsm_plus_questions)


def test_absent_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(QuestionFileError, match=r"absent\.jsonl: No such file"):
        read(tmp_path / "absent.jsonl", problem_questions)
    with pytest.raises(QuestionFileError, match="must have rows, got none"):
        read(write(tmp_path, ""), problem_questions)
    (tmp_path / "latin.jsonl").write_bytes(b'{"problem": "\xff", "answer": "4"}\n')
    with pytest.raises(QuestionFileError, match=r"line 1: .*utf-8"):
        read(tmp_path / "latin.jsonl", problem_questions)


def test_the_real_files(shared_file: Callable[[str], Path]) -> None:
    assert len(read(shared_file("data/gsm8k/test.jsonl"), gsm8k_questions)) == 1319
    assert (
        len(read(shared_file("data/math_eval/math500.jsonl"), problem_questions)) == 500
    )
    assert (
        len(read(shared_file("data/math_eval/aime24.jsonl"), problem_questions)) == 30
    )
    assert len(read(shared_file("data/math_eval/amc23.jsonl"), problem_questions)) == 83
    plus = read(shared_file("data/gsm_plus/testmini.jsonl"), gsm_plus_questions)
    kinds = Counter(question.kind for question in plus)
    assert kinds.pop(SEED) == 300
    assert set(kinds.values()) == {300}
    assert len(kinds) == 8


def test_shared_hostile_rows(
    shared_file: Callable[[str], Path], tmp_path: Path
) -> None:
    for row in rows_of(shared_file("reference/hostile_inputs.jsonl"), "row"):
        path = tmp_path / "row.jsonl"
        path.write_text(text_of(row["input"]) + "\n", "utf-8")
        if row["expected"] == "correct":
            assert len(read(path, problem_questions)) == 1, row["why"]
            continue
        with pytest.raises(QuestionFileError, match=r"row\.jsonl"):
            read(path, problem_questions)
