"""Arithmetic in words: the words, the split, the answers."""

import re
from dataclasses import replace

import pytest

from jaxrl_reason.grading.exact_arithmetic import exact_value
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.word_arithmetic import (
    ArithmeticSettings,
    arithmetic,
    generate_questions,
    in_words,
    worked_examples,
)
from jaxrl_reason.text.symbols import SymbolTokenizer

ALL = ArithmeticSettings(operations=("plus", "minus", "times"), num_phrases=4)
VALUE = {in_words(number): number for number in range(1000)}


def numbers_of(question: Question) -> list[int]:
    words = re.findall(r"[a-z]+(?:-[a-z]+)?", question.question.lower())
    return [VALUE[word] for word in words if word in VALUE]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (48, "forty-eight"),
        (100, "one hundred"),
        (312, "three hundred and twelve"),
        (999, "nine hundred and ninety-nine"),
    ],
)
def test_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_words_tell_all_numbers_apart() -> None:
    assert len(VALUE) == 1000


def test_every_answer_is_right() -> None:
    for question in generate_questions(ALL)["train"]:
        first, second = numbers_of(question)
        if "subtract" in question.question:
            first, second = second, first
        results = {
            "plus": first + second,
            "minus": first - second,
            "times": first * second,
        }
        assert int(question.answer) == results[question.kind]
        assert int(question.answer) >= 0


def test_no_number_is_in_two_splits() -> None:
    splits = generate_questions(ALL)
    seen = {
        name: {number for question in questions for number in numbers_of(question)}
        for name, questions in splits.items()
    }
    assert set.union(*seen.values()) == set(range(1, 100))
    assert sum(map(len, seen.values())) == 99


def test_ids_are_unique_and_the_same_every_time() -> None:
    splits = generate_questions(ALL)
    ids = [q.problem_id for questions in splits.values() for q in questions]
    assert len(set(ids)) == len(ids)
    generate_questions.cache_clear()
    assert generate_questions(ALL) == splits
    other = generate_questions(replace(ALL, seed=1))
    assert other["test"] != splits["test"]


def test_the_first_questions_are_a_sample_of_all() -> None:
    first = generate_questions(ALL)["train"][:300]
    assert {question.kind for question in first} == {"plus", "minus", "times"}
    assert len({question.question.split("{")[0][:12] for question in first}) > 3


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        ("52", True),
        ("34 + 18 = 52", True),
        ("The sum of thirty-four and eighteen is 52.", True),
        ("52\nI hope that helps!", False),
        ("fifty-two", False),
        ("50, 51, 52, 53", False),
    ],
)
def test_the_last_number_counts(response: str, correct: bool) -> None:
    task = arithmetic(SymbolTokenizer(10))
    question = Question(0, "What is thirty-four plus eighteen?", "52")
    assert task.grade(question, response, False).correct is correct
    assert not task.grade(question, response, True).correct


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_number": 1000}, "max_number <= 999, got 1 and 1000"),
        ({"min_number": 9, "max_number": 9}, "got 9 and 9"),
        ({"operations": ()}, "operations must be"),
        ({"operations": ("plus", "plus")}, "operations must be"),
        ({"operations": ("power",)}, "operations must be"),
        ({"test_fraction": 1.0}, "test_fraction must be"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "must be < 1, got 1.0"),
        ({"num_phrases": 5}, "num_phrases must be 1 to 4, got 5"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_bad_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ArithmeticSettings(**settings)  # type: ignore[arg-type]


def test_a_split_without_numbers() -> None:
    settings = ArithmeticSettings(max_number=4, validation_fraction=0.01)
    with pytest.raises(ValueError, match="got none for 'validation'"):
        generate_questions(settings)


def test_numbers_beyond_words() -> None:
    with pytest.raises(ValueError, match="number must be 0 to 999, got 1000"):
        in_words(1000)


def test_one_phrase_is_the_default() -> None:
    for question in generate_questions(ArithmeticSettings())["test"]:
        assert re.fullmatch(r"What is [a-z-]+ plus [a-z-]+\?", question.question)


def test_examples_are_right_and_of_training_numbers():
    settings = replace(ALL, num_phrases=1)
    held_out = {
        number
        for split in ("validation", "test")
        for question in generate_questions(settings)[split]
        for number in numbers_of(question)
    }
    examples = worked_examples(settings, 6)
    assert [text.split("=")[0].split()[1] for _, text in examples] == [
        "+",
        "-",
        "*",
    ] * 2
    for question, response in examples:
        left, right = response.split("=")
        assert exact_value(left) == int(right) >= 0
        asked = numbers_of(Question(0, question, right))
        assert asked == [int(part) for part in left.split()[::2]]
        assert not held_out & set(asked)
    assert examples[:2] == worked_examples(settings, 2)


@pytest.mark.parametrize(
    ("count", "said"), [(-1, "must be >= 0, got -1"), (36, "need 72 numbers")]
)
def test_too_many_examples_are_refused(count, said):
    with pytest.raises(ValueError, match=said):
        worked_examples(ArithmeticSettings(), count)


class ChatTokenizer(SymbolTokenizer):
    """Keeps the messages that it is to make a prompt of."""

    chat_template = "some"

    def encode_chat(self, messages):
        self.messages = messages
        return [1]


def test_examples_are_earlier_turns_of_the_chat():
    tokenizer = ChatTokenizer(10)
    task = arithmetic(tokenizer, "Digits.", worked_examples(ArithmeticSettings(), 1))
    assert task.prompt_tokens(Question(0, "What is two plus two?", "4")) == [1]
    assert tokenizer.messages == [
        {"role": "user", "content": "What is fifty-seven plus fifty-nine? Digits."},
        {"role": "assistant", "content": "57 + 59 = 116"},
        {"role": "user", "content": "What is two plus two? Digits."},
    ]


class PlainTokenizer(SymbolTokenizer):
    """Text in, text out."""

    def encode(self, text):
        return text


def test_examples_are_text_where_there_is_no_chat():
    examples = worked_examples(ArithmeticSettings(), 1)
    task = arithmetic(PlainTokenizer(10), "", examples)
    assert task.prompt_tokens(Question(0, "What is two plus two?", "4")) == (
        "What is fifty-seven plus fifty-nine?\n\nAnswer: 57 + 59 = 116\n\n"
        "What is two plus two?\n\nAnswer:"
    )


def test_numbers_may_stand_in_digits():
    digits = generate_questions(replace(ALL, written="digits"))
    for split, questions in generate_questions(ALL).items():
        for spelled, question in zip(questions, digits[split], strict=True):
            assert question.problem_id == spelled.problem_id
            assert question.answer == spelled.answer
    first = generate_questions(ArithmeticSettings(written="digits"))["test"][0]
    assert (first.question, first.answer) == ("What is 38 plus 53?", "91")
    with pytest.raises(ValueError, match="written must be words or digits, got 'x'"):
        ArithmeticSettings(written="x")
