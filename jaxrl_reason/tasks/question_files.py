"""Question sets from JSONL files, with errors that name file and line."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxrl_reason.grading.answers import MARKER
from jaxrl_reason.tasks.questions import Question

Row = dict[str, Any]
SEED = "seed"  # kind of a question that GSM-Plus varies


class QuestionFileError(ValueError):
    """A file cannot be read as questions; the message names file and line."""


def read_gsm8k(path: str | Path) -> list[Question]:
    """GSM8K: `question` and `answer`, a worked solution that ends in `#### 72`.

    Args:
        path: the file.

    Returns:
        The questions, numbered by their line from 0.

    Raises:
        QuestionFileError: a row is not of this form.
    """

    def question(number: int, row: Row) -> Question:
        answer = _text(row, "answer")
        if MARKER not in answer:
            raise ValueError(f"answer must end in '#### number', got {answer[-60:]!r}")
        answer = answer.rpartition(MARKER)[2].strip()
        return Question(number, _text(row, "question"), answer)

    return _questions(path, question)


def read_problems(path: str | Path) -> list[Question]:
    """MATH-500, AIME, AMC: `problem` (or `question`) and `answer`, text or a number.

    Args:
        path: the file.

    Returns:
        The questions, numbered by their line from 0.

    Raises:
        QuestionFileError: a row is not of this form.
    """

    def question(number: int, row: Row) -> Question:
        name = "problem" if "problem" in row else "question"
        return Question(number, _text(row, name), _text(row, "answer"))

    return _questions(path, question)


def read_gsm_plus(path: str | Path) -> list[Question]:
    """GSM-Plus (arXiv 2402.19255): the seed questions, each before its variants.

    A row has `question`, `answer`, `perturbation_type` and, of the GSM8K question that
    it varies, `seed_question` and `seed_answer`. The reference "None" stands for a
    question that cannot be answered.

    Args:
        path: the file.

    Returns:
        The questions: `kind` is "seed" or the perturbation, `seed_id` leads from a
        variant to its seed. Ids count from 0.

    Raises:
        QuestionFileError: a row is not of this form, or two rows give one seed question
            different answers.
    """
    groups: dict[str, list[Row]] = {}
    for line, row in _rows(path):
        with _At(path, line):
            for name in ("question", "answer", "perturbation_type", "seed_answer"):
                row[name] = _text(row, name)
            group = groups.setdefault(_text(row, "seed_question"), [])
            if group and group[0]["seed_answer"] != row["seed_answer"]:
                raise ValueError(
                    "rows of one seed question must agree on seed_answer, got "
                    f"{group[0]['seed_answer']!r} and {row['seed_answer']!r}"
                )
            group.append(row)
            if row["perturbation_type"] == SEED or not row["question"].strip():
                raise ValueError(
                    "a variant must have a question and a perturbation_type that is "
                    f"not {SEED!r}, got {row['perturbation_type']!r}"
                )
    questions: list[Question] = []
    for seed_question, rows in groups.items():
        seed = Question(len(questions), seed_question, rows[0]["seed_answer"], SEED)
        questions.append(seed)
        for row in rows:
            kind = row["perturbation_type"]
            variant = Question(
                len(questions), row["question"], row["answer"], kind, seed.problem_id
            )
            questions.append(variant)
    return questions


class _At:
    """Adds file and line to the errors of a row."""

    def __init__(self, path: str | Path, line: int) -> None:
        self.place = f"{path}, line {line}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, RecursionError)):
            said = str(error) or type(error).__name__
            raise QuestionFileError(f"{self.place}: {said}") from error


def _questions(
    path: str | Path, make: Callable[[int, Row], Question]
) -> list[Question]:
    questions: list[Question] = []
    for line, row in _rows(path):
        with _At(path, line):
            questions.append(make(len(questions), row))
    return questions


def _rows(path: str | Path) -> Iterator[tuple[int, Row]]:
    """Line numbers from 1, and the objects of the lines that are not blank."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise QuestionFileError(f"{path}: {error.strerror}") from error
    empty = True
    # Not splitlines of a str: it also splits at U+2028, which JSON may hold.
    for line, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            empty = False
            with _At(path, line):
                yield line, _object(text)
    if empty:
        raise QuestionFileError(f"{path}: a file of questions must have rows, got none")


def _object(text: bytes) -> Row:
    row = json.loads(
        text, object_pairs_hook=_without_repeats, parse_constant=_no_constant
    )
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, got {text[:60]!r}")
    return row


def _without_repeats(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a field must occur once, got {repeated!r} twice")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"a value must be valid JSON, got {name}")


def _text(row: Row, name: str) -> str:
    """A field that must be text that can be written, or a number."""
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {value!r}")
    value.encode()  # half a surrogate pair is a UnicodeEncodeError, a ValueError
    return value
