r"""MATH, Minerva, OlympiadBench and others: the answer in a field or in a solution."""

from collections.abc import Iterable

from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    Row,
    first_name,
    text_field,
)
from jaxrl_reason.tasks.questions import Question

_QUESTION = ("problem", "question", "Problem", "Question")
_ANSWER = ("answer", "final_answer", "expected_answer", "Answer")
_SOLUTION = ("solution", "Solution")
_KIND = ("level", "type", "subject", "subfield")


def math_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    r"""Mathematical questions from the rows of public sets.

    The text is `problem` or `question`, after `context` if there is one
    (OlympiadBench). The answer is `answer`, `final_answer` or `expected_answer`, or the
    last `\boxed{}` of `solution` (MATH, Minerva). A list of one answer is that answer;
    a list of several (OlympiadBench) is all of them, in any order. Names may begin with
    a capital (AIME).

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions, numbered from 0; `kind` is `level`, `type`, `subject` or
      `subfield`, the first that there is.

    Raises:
      QuestionFileError: a row has no text or no answer; the message names its place.

    Example:
      >>> row = {"problem": "1 + 1?", "solution": r"So it is $\boxed{2}$."}
      >>> math_questions([("line 1", row)])[0].answer
      '2'
    """
    questions: list[Question] = []
    for place, row in rows:
        with NamedPlace(place):
            asked = text_field(row, first_name(row, _QUESTION))
            if row.get("context"):
                asked = f"{text_field(row, 'context')}\n\n{asked}"
            kind = str(row.get(first_name(row, _KIND)) or "")
            questions.append(Question(len(questions), asked, _answer(row), kind))
    return questions


def _answer(row: Row) -> str:
    name = first_name(row, _ANSWER)
    given = row.get(name)
    if isinstance(given, list) and given:
        parts = [text_field({name: part}, name).strip().strip("$") for part in given]
        return ", ".join(parts)
    solution = first_name(row, _SOLUTION)
    if given is None and row.get(solution):
        found = marked_answer(text_field(row, solution))
        if found is None:
            raise ValueError(r"solution must hold the answer in \boxed{}, got no box")
        return found
    return text_field(row, name)
