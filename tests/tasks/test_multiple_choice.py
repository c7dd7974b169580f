"""Multiple choice: rows of public sets, letters and texts."""

from typing import Any

import pytest

from jaxrl_reason.tasks.multiple_choice import (
    ChoiceQuestion,
    choice_questions,
    multiple_choice,
    read_choice,
)
from jaxrl_reason.tasks.question_rows import QuestionFileError
from jaxrl_reason.tasks.questions import ungradable
from tests.tasks.test_questions import Bytes

TOWNS = ["London", "Paris", "New  York", "Rome."]
FORMS: dict[str, dict[str, Any]] = {
    "mmlu": {"question": "?", "choices": TOWNS, "answer": 1},
    "mmlu-pro": {"question": "?", "options": TOWNS, "answer": "B", "answer_index": 1},
    "arc": {
        "question": "?",
        "choices": {"text": TOWNS, "label": ["1", "2", "3", "4"]},
        "answerKey": "2",
    },
    "mapping": {
        "query": "?",
        "options": dict(zip("ABCD", TOWNS, strict=True)),
        "answer": "Paris",
    },
    "gpqa": {
        "Question": "Which?",
        "Correct Answer": "Paris",
        **{f"Incorrect Answer {i}": town for i, town in enumerate(TOWNS) if i != 1},
    },
}


def question_of(row: dict[str, Any]) -> ChoiceQuestion:
    (found,) = choice_questions([("line 1", row)])
    assert isinstance(found, ChoiceQuestion)
    return found


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_public_sets(name: str) -> None:
    question = question_of(FORMS[name])
    assert question.options["ABCD".index(question.answer)] == "Paris"
    assert f"\n{question.answer}. Paris" in question.question
    assert question == question_of(FORMS[name])
    assert ungradable([question]) == {}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *((text, "B") for text in ("B", "b", "(B)", "B.", "(b).", "B)", "**B**")),
        *((text, "B") for text in (r"\text{B}", r"\textbf{(B)}", "B: Paris")),
        *((text, "C") for text in ("new york", " New\nYork. ", "C) New York")),
        *((text, "C") for text in ("C new york", "c. NEW YORK.")),
        ("Rome", "D"),
        *((text, None) for text in ("E", "A or B", "A, B", "AB", "B. London")),
        *((text, None) for text in ("B Rome", "", "Paris or Rome", "not B", "BB")),
        *((text, None) for text in ("Pari", "1", "B?", "(A)(B)", "\\boxed{B}")),
    ],
)
def test_letters_and_texts(answer: str, letter: str | None) -> None:
    assert read_choice(answer, TOWNS) == letter


def test_a_letter_counts_before_a_text() -> None:
    assert read_choice("B", ("B", "A")) == "B"
    assert read_choice("7", ("7", "8")) == "A"
    assert read_choice("a cat", ("a dog", "a cat")) == "B"


def test_grades() -> None:
    task, question = multiple_choice(Bytes()), question_of(FORMS["mmlu"])

    def grade(text: str, truncated: bool = False) -> tuple[bool, bool, str | None]:
        found = task.grade(question, text, truncated)
        return found.correct, found.format_ok, found.parsed

    assert grade(r"So \boxed{B}.") == (True, True, "B")
    assert grade(r"\boxed{A} no: \boxed{\text{Paris}}") == (True, True, "B")
    assert grade("#### B") == (True, True, "B")
    assert grade(r"\boxed{A}") == (False, True, "A")
    assert grade(r"\boxed{A \text{ or } B}") == (False, False, "A \\text{ or } B")
    assert grade("The answer is B.") == (False, False, None)
    assert grade(r"<think>\boxed{B}</think> I do not know.") == (False, False, None)
    assert grade(r"\boxed{B}", truncated=True)[0] is False
    assert task.same_answer("B", "B")
    assert not task.same_answer("B", "A")
    assert "A. London\nB. Paris" in Bytes().decode(task.prompt_tokens(question))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "?", "choices": ["a"], "answer": 0}, "2 to 26, got 1"),
        ({"question": "?", "choices": ["a", "A "], "answer": 0}, "options must differ"),
        ({"question": "?", "choices": ["a", "b"], "answer": 2}, "one of the 2 options"),
        ({"question": "?", "choices": ["a", "b"], "answer": "z"}, "got 'z'"),
        ({"question": "?", "choices": ["a", None], "answer": 0}, "option must be text"),
        ({"question": "?", "answer": "A"}, "a list or a mapping, got None"),
        ({"choices": ["a", "b"], "answer": 0}, "question"),
    ],
)
def test_rows_that_are_no_choice(row: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionFileError, match=f"line 1: .*{said}"):
        choice_questions([("line 1", row)])
