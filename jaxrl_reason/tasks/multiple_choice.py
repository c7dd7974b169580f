r"""Multiple choice: the answer is a letter, or the text of an option."""

import random
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.formats import after_reasoning
from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    Row,
    first_name,
    text_field,
)
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.task import Graded, without_end
from jaxrl_reason.text.tokenizer import Tokenizer

LETTERS = string.ascii_uppercase
INSTRUCTION = (
    r"Think step by step, then give the letter of the right option within \boxed{}."
)
_QUESTION = ("question", "problem", "query", "Question")
_OPTIONS = ("choices", "options")
_GOLD = ("answer", "answerKey", "answer_index", "label")
# GPQA has the right answer and three wrong ones in fields of their own.
_RIGHT, _WRONG = "Correct Answer", "Incorrect Answer "
# "B", "(B)", "B.", "B) text", "**B**: text"
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?:\s*[.:)]\s*(.*)|\s+(\S.*))?", re.DOTALL)
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


@dataclass(frozen=True)
class ChoiceQuestion(Question):
    """A question with options; the answer is a letter.

    Attributes:
      options: their texts, A first.
    """

    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= len(self.options) <= len(LETTERS):
            raise ValueError(f"options must be 2 to 26, got {len(self.options)}")
        if len(set(map(_plain, self.options))) < len(self.options):
            raise ValueError(f"options must differ, got {self.options}")
        if self.answer not in LETTERS[: len(self.options)]:
            raise ValueError(
                f"answer must be a letter up to {LETTERS[len(self.options) - 1]}, got "
                f"{self.answer!r}"
            )

    def unreadable(self, policy: AnswerPolicy = USUAL) -> None:
        """Every question can be graded.

        Args:
          policy: not used.
        """


def choice_questions(rows: Iterable[PlacedRow]) -> list[Question]:
    """Questions with options, from the rows of public sets.

    `question` with `choices` or `options`, a list of texts (MMLU, MMLU-Pro), a mapping
    of letters to texts, or of `text` and `label` (ARC, CommonsenseQA); `answer`,
    `answerKey`, `answer_index` or `label`: a letter, a number from 0, or the text of an
    option. Or `Question`, `Correct Answer` and `Incorrect Answer 1` to `3` (GPQA),
    whose options are put in an order that depends on the question alone.

    Args:
      rows: each with its place, from any source.

    Returns:
      The questions, numbered from 0.

    Raises:
      QuestionFileError: a row is not of one of these forms; the message names its
      place.

    Example:
      >>> row = {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}
      >>> print(choice_questions([("line 1", row)])[0].question)
      2 + 2?
      <BLANKLINE>
      A. 3
      B. 4
    """
    questions: list[Question] = []
    for place, row in rows:
        with NamedPlace(place):
            questions.append(_question(len(questions), row))
    return questions


def _question(number: int, row: Row) -> ChoiceQuestion:
    asked = text_field(row, first_name(row, _QUESTION)).strip()
    if _RIGHT in row:
        options = [text_field(row, _RIGHT)]
        options += [
            text_field(row, key) for key in sorted(row) if key.startswith(_WRONG)
        ]
        right = options[0]
        random.Random(asked).shuffle(options)
        gold = LETTERS[options.index(right)]
    else:
        options, labels = _options(row)
        gold = _gold(row, options, labels)
    listed = "\n".join(f"{x}. {y}" for x, y in zip(LETTERS, options, strict=False))
    return ChoiceQuestion(
        number, f"{asked}\n\n{listed}", gold, options=tuple(map(str.strip, options))
    )


def _options(row: Row) -> tuple[list[str], list[str]]:
    """The options, and what they are called in the row."""
    given: Any = row.get(first_name(row, _OPTIONS))
    if isinstance(given, Mapping) and "text" in given:
        texts = list(given["text"])
        labels = [str(x) for x in given.get("label") or LETTERS[: len(texts)]]
    elif isinstance(given, Mapping):
        labels, texts = list(given), list(given.values())
    elif isinstance(given, Sequence) and not isinstance(given, str):
        texts = list(given)
        labels = list(LETTERS[: len(texts)])
    else:
        raise ValueError(
            f"choices or options must be a list or a mapping, got {given!r}"
        )
    options = [text_field({"option": text}, "option") for text in texts]
    return options, labels


def _gold(row: Row, options: Sequence[str], labels: Sequence[str]) -> str:
    """The letter of the right option."""
    name = first_name(row, _GOLD)
    given = row.get(name)
    if isinstance(given, int) and not isinstance(given, bool):
        if 0 <= given < len(options):
            return LETTERS[given]
    else:
        said = text_field(row, name).strip()
        if said in labels:
            return LETTERS[labels.index(said)]
        plain = [_plain(option) for option in options]
        if _plain(said) in plain:
            return LETTERS[plain.index(_plain(said))]
    raise ValueError(f"{name} must be one of the {len(options)} options, got {given!r}")


def read_choice(answer: str, options: Sequence[str]) -> str | None:
    r"""The letter of the option that an answer names.

    A letter, as `B`, `(B)`, `b.` or `\text{B}`; a letter and the text of the same
    option, `B. Paris`; or the text of an option, in any case and with any white space,
    unless it is itself the letter of an option. An answer that says anything else, or
    names several options, names none.

    Args:
      answer: the final answer.
      options: their texts, A first.

    Returns:
      The letter, or None.

    Example:
      >>> options = ("London", "Paris")
      >>> [read_choice(x, options) for x in ("(B)", "B. paris", "Paris")]
      ['B', 'B', 'B']
      >>> [read_choice(x, options) for x in ("B. London", "A or B", "C")]
      [None, None, None]
    """
    said = _WRAPPED.sub(r"\1", answer).replace("*", "").strip().rstrip(".")
    plain = [_plain(option) for option in options]
    letter = _LETTER.fullmatch(said)
    if letter is not None:
        place = LETTERS.index(letter[1].upper())
        rest = letter[2] or letter[3]
        if place < len(options) and (not rest or _plain(rest) == plain[place]):
            return LETTERS[place]
    if _plain(said) in plain:
        return LETTERS[plain.index(_plain(said))]
    return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


@dataclass(frozen=True)
class ChoiceTask(QuestionTask):
    """Asks a `ChoiceQuestion`; graded by letter or text (`read_choice`).

    `parsed` of a grade is a letter, or an answer that names no option.
    """

    def _graded(self, problem: Question, text: str) -> Graded:
        assert isinstance(problem, ChoiceQuestion)
        whole = without_end(text, self.tokenizer)
        said = after_reasoning(whole, self._opened(problem))
        answer = None if said is None else self.extract(said)
        if answer is None:
            return Graded(correct=False, format_ok=False, parsed=None)
        letter = read_choice(answer, problem.options)
        return Graded(
            correct=letter == problem.answer,
            format_ok=letter is not None,
            parsed=letter or answer[:80],
        )

    def same_answer(self, first: str, second: str) -> bool:
        """Whether two answers name the same option.

        Args:
          first: `parsed` of a grade.
          second: of another.
        """
        return first == second


def multiple_choice(tokenizer: Tokenizer) -> ChoiceTask:
    """Questions with options.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return ChoiceTask(tokenizer, INSTRUCTION, "multiple_choice")
