"""Questions: prompts with and without a chat, ends, grades."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.tasks import benchmarks
from jaxrl_reason.tasks.questions import Question, encode_user_turn, ungradable
from jaxrl_reason.tasks.task import GradesAhead
from jaxrl_reason.tasks.word_arithmetic import arithmetic


class Bytes:
    """One token a byte; 256 pads, 257 ends."""

    vocab_size, pad_token_id, eos_token_id = 258, 256, 257

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class Chat(Bytes):
    """The same with a chat, a first token and two ends."""

    chat_template = "something"
    eos_token_ids = (257, 1)

    def encode_prompt(self, text: str) -> list[int]:
        return [2, *self.encode(text)]

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        assert [message["role"] for message in messages] == ["user"]
        return self.encode(f"<user>{messages[0]['content']}<assistant>")


QUESTION = Question(3, "What is 2 + 2?", "4")


def test_a_chat_of_one_message() -> None:
    ids = encode_user_turn(Chat(), "Hello")
    assert Bytes().decode(ids) == "<user>Hello<assistant>"


def test_without_a_chat_plain_text() -> None:
    assert Bytes().decode(encode_user_turn(Bytes(), "Hello")) == "Hello\n\nAnswer:"


def test_a_chat_tokenizer_without_a_template_writes_plain_text() -> None:
    tokenizer = Chat()
    tokenizer.chat_template = None  # type: ignore[assignment]
    ids = encode_user_turn(tokenizer, "Hello")
    assert ids == [2, *b"Hello\n\nAnswer:"]


@pytest.mark.parametrize(
    ("make", "mark"),
    [
        (benchmarks.gsm8k, "####"),
        (benchmarks.gsm_plus, "#### None"),
        (benchmarks.math_answers, r"\boxed{}"),
        (benchmarks.aime, r"\boxed{}"),
        (arithmetic, "digits"),
    ],
)
def test_the_prompt_asks_for_what_is_graded(make: object, mark: str) -> None:
    task = make(Chat())  # type: ignore[operator]
    text = Bytes().decode(task.prompt_tokens(QUESTION))
    assert QUESTION.question in text
    assert mark in text


def test_every_end_token_ends() -> None:
    assert benchmarks.gsm8k(Chat()).eos_token_ids == (257, 1)
    assert benchmarks.gsm8k(Bytes()).eos_token_ids == (257,)


@pytest.mark.parametrize(
    ("response", "truncated", "correct", "found", "failed"),
    [
        ("2 + 2 = 4\n#### 4", False, True, True, False),
        (r"\boxed{4.0}", False, True, True, False),
        ("2 + 2 = 4\n#### 4", True, False, True, False),
        ("#### 5", False, False, True, False),
        ("4", False, False, False, False),
        ("", False, False, False, False),
        ("\ud800", False, False, False, False),
    ],
)
def test_grades(
    response: str, truncated: bool, correct: bool, found: bool, failed: bool
) -> None:
    graded = benchmarks.gsm8k(Bytes()).grade(QUESTION, response, truncated)
    assert graded.correct is correct
    assert graded.format_ok is found
    assert graded.failed is failed


def test_an_unsolvable_question_wants_none() -> None:
    task = benchmarks.gsm_plus(Bytes())
    question = Question(0, "How many?", "None")
    assert task.grade(question, "#### None", False).correct
    assert not task.grade(question, "#### 0", False).correct
    assert not task.grade(question, "None", False).correct


def test_aime_takes_leading_zeros_and_the_others_do_not() -> None:
    question = Question(0, "?", "025")
    assert benchmarks.aime(Bytes()).grade(question, r"\boxed{25}", False).correct
    assert benchmarks.aime(Bytes()).grade(question, r"\boxed{025}", False).correct
    question = Question(0, "?", "25")
    assert not benchmarks.gsm8k(Bytes()).grade(question, "#### 025", False).correct


@pytest.mark.parametrize(("question", "answer"), [("", "4"), (" ", "4"), ("?", "")])
def test_a_question_needs_text_and_answer(question: str, answer: str) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        Question(0, question, answer)


class Reasons(Bytes):
    """A tokenizer whose chat template opens the reasoning."""

    chat_template = "any"

    def encode_chat(self, messages: Any) -> list[int]:
        return self.encode(messages[0]["content"] + "\n<think>\n")


@pytest.mark.parametrize(
    ("response", "plain", "opened"),
    [
        ("#### 4", True, False),
        ("so </think> #### 4", True, True),
        ("perhaps #### 4 </think> done", False, False),
        ("<think> #### 4", False, False),
    ],
)
def test_reasoning_that_the_prompt_opens_must_be_closed(
    response: str, plain: bool, opened: bool
) -> None:
    for tokenizer, correct in ((Bytes(), plain), (Reasons(), opened)):
        task = benchmarks.gsm8k(tokenizer)
        assert task.grade(QUESTION, response, False).correct is correct
    ignoring = replace(benchmarks.gsm8k(Reasons()), reasoning=False)
    assert ignoring.grade(QUESTION, "<think> #### 4", False).correct


def test_answers_are_checked_ahead_all_at_once() -> None:
    question = Question(0, "?", r"2\sqrt{2}")
    texts = [r"\boxed{\sqrt{8}}", r"\boxed{\sqrt{7}}", r"\boxed{2\sqrt2}", "none"]
    with MathVerifier(deadline=20) as verify:
        task = benchmarks.math_answers(Bytes(), verify=verify)
        task.grade_ahead([question] * 4, texts)
        assert verify.counts == {"equal": 1, "unequal": 1}
        right = [task.grade(question, text, False).correct for text in texts]
    assert right == [True, False, True, False]
    assert isinstance(task, GradesAhead)


def test_references_that_cannot_be_graded_are_found() -> None:
    golds = ["4", r"\sqrt[3]{2}", "(1, 2", r"\int x"]
    questions = [Question(i, "?", gold) for i, gold in enumerate(golds)]
    assert list(ungradable(questions)) == [2, 3]


def test_votes_are_by_value() -> None:
    task = benchmarks.math_answers(Bytes())
    assert task.same_answer(r"\sqrt{8}", r"2\sqrt{2}")
    assert not task.same_answer(r"\sqrt{8}", "3")
