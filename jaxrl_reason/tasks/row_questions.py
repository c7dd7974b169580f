"""A user's own questions: rows with any field names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    Row,
    field_of,
    text_field,
)
from jaxrl_reason.tasks.questions import Question


@dataclass(frozen=True)
class RowQuestion(Question):
    """A question with its row, for a reward that uses other fields.

    The answer may be empty if such a reward does not need it.

    Attributes:
      row: all fields of the row.
    """

    row: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ValueError(f"question must not be empty, got {self!r}")


def row_questions(
    rows: Iterable[PlacedRow],
    *,
    question: str = "question",
    answer: str | None = "answer",
    first_id: int = 0,
    flags: str = "--task.",
) -> list[Question]:
    """A question from each row.

    Args:
      rows: each with its place, from any source.
      question: name of the field with the question.
      answer: name of the field with the final answer; None for no answer.
      first_id: number of the first question.
      flags: what stands before `question` and `answer` on the command line, for
        messages.

    Returns:
      The questions, numbered from `first_id`.

    Raises:
      QuestionFileError: a row lacks a field; the message names its place.

    Example:
      >>> row = {"problem": "1 + 1?", "solution": 2, "level": "easy"}
      >>> found = row_questions(
      ...     [("line 1", row)], question="problem", answer="solution"
      ... )
      >>> found[0].answer, found[0].row["level"]
      ('2', 'easy')
    """
    questions: list[Question] = []
    for place, row in rows:
        with NamedPlace(place):
            questions.append(
                RowQuestion(
                    problem_id=first_id + len(questions),
                    question=_named(row, question, f"{flags}question"),
                    answer=(
                        "" if answer is None else _named(row, answer, f"{flags}answer")
                    ),
                    row=row,
                )
            )
    return questions


def _named(row: Row, name: str, flag: str) -> str:
    """A text field; where it is missing, the message says how to name another."""
    try:
        field_of(row, name)
    except ValueError as error:
        raise ValueError(f"{error}; name another with {flag} FIELD") from None
    return text_field(row, name)
