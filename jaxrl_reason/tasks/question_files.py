"""Questions of the benchmarks, from rows of any source and from files."""

from collections.abc import Callable, Iterable

from jaxrl_reason.grading.answers import MARKER
from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    Row,
    text_field,
)
from jaxrl_reason.tasks.question_rows import (
    QuestionFileError as QuestionFileError,
)
from jaxrl_reason.tasks.questions import Question

SEED = "seed"  # kind of a GSM-Plus question that is varied
_GSM_PLUS_FIELDS = (
    "question",
    "answer",
    "perturbation_type",
    "seed_question",
    "seed_answer",
)


def gsm8k_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    """GSM8K: `question` and `answer`, a worked solution that ends in `#### 72`.

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions, numbered from 0.

    Raises:
      QuestionFileError: a row is not of this form; the message names its place.

    Example:
      >>> row = {"question": "1 + 1?", "answer": "1 + 1 = 2. #### 2"}
      >>> gsm8k_questions([("line 1", row)])[0].answer
      '2'
    """

    def question(number: int, row: Row) -> Question:
        answer = text_field(row, "answer")
        if MARKER not in answer:
            raise ValueError(f"answer must end in '#### number', got {answer[-60:]!r}")
        answer = answer.rpartition(MARKER)[2].strip()
        return Question(number, text_field(row, "question"), answer)

    return _one_per_row(rows, question)


def problem_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    """MATH-500, AIME, AMC: `problem` (or `question`) and `answer`, text or a number.

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions, numbered from 0.

    Raises:
      QuestionFileError: a row is not of this form; the message names its place.
    """

    def question(number: int, row: Row) -> Question:
        name = "problem" if "problem" in row else "question"
        return Question(number, text_field(row, name), text_field(row, "answer"))

    return _one_per_row(rows, question)


def gsm_plus_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    """GSM-Plus (arXiv 2402.19255): the seed questions, each followed by its variants.

    A row has `question`, `answer`, `perturbation_type` and, from the GSM8K question
    that it varies, `seed_question` and `seed_answer`. The reference "None" means that
    the question cannot be answered.

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions: `kind` is "seed" or the perturbation, `seed_id` is the id of a
      variant's seed. Ids count from 0.

    Raises:
      QuestionFileError: a row is not of this form, or two rows have different answers
      to the same seed question.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for place, found in rows:
        with NamedPlace(place):
            row = {name: text_field(found, name) for name in _GSM_PLUS_FIELDS}
            group = groups.setdefault(row["seed_question"], [])
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
    for seed_question, group in groups.items():
        seed = Question(len(questions), seed_question, group[0]["seed_answer"], SEED)
        questions.append(seed)
        for row in group:
            kind = row["perturbation_type"]
            variant = Question(
                len(questions), row["question"], row["answer"], kind, seed.problem_id
            )
            questions.append(variant)
    return questions


def _one_per_row(
    rows: Iterable[PlacedRow], make: Callable[[int, Row], Question]
) -> list[Question]:
    questions: list[Question] = []
    for place, row in rows:
        with NamedPlace(place):
            questions.append(make(len(questions), row))
    return questions
