"""Questions with a final answer that can be checked: the task of most benchmarks."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.final_answer import (
    FAILED,
    RIGHT,
    Undecided,
    Verify,
    compare_final_answer,
    grade_final_answer,
    unreadable_gold,
)
from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.grading.worker_pool import WorkerError
from jaxrl_reason.tasks.task import Graded
from jaxrl_reason.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
      problem_id: number of the question, unique in its set.
      question: its text.
      answer: the reference answer.
      kind: the kind of question, if the set distinguishes kinds.
      seed_id: for a variant, `problem_id` of its original question.
    """

    problem_id: int
    question: str
    answer: str
    kind: str = ""
    seed_id: int | None = None

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} must not be empty, got {self!r}")

    def unreadable(self, policy: AnswerPolicy = USUAL) -> str | None:
        """Why no response can be graded against the reference; None if one can.

        Args:
          policy: of the task.
        """
        return unreadable_gold(self.answer, policy)


@dataclass(frozen=True)
class QuestionTask:
    """Asks a question, extracts the final answer and compares it with the reference.

    Attributes:
      tokenizer: text to ids and back; with `encode_chat` and a chat template the prompt
        becomes a chat.
      instruction: says how to mark the final answer; follows the question.
      name: short name, used in files and plots.
      extract: finds the final answer in a response.
      verify: decides by algebra where fractions do not: in this process, or in worker
        processes as a `MathVerifier`.
      policy: reads answers that have several meanings.
      reasoning: True: the response closes reasoning that the prompt opens, and only
        what follows counts; None: that is so if the prompt ends with `<think>`, or if
        the response has such tags; False: the tags mean nothing.
      separator: text between question and instruction.
    """

    tokenizer: Tokenizer
    instruction: str
    name: str
    extract: Callable[[str], str | None] = marked_answer
    verify: Verify = algebraically_equal
    policy: AnswerPolicy = USUAL
    reasoning: bool | None = None
    separator: str = "\n\n"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response: all those of the tokenizer."""
        return all_eos_token_ids(self.tokenizer)

    def prompt_tokens(self, problem: Question) -> list[int]:
        """Token ids of the prompt."""
        text = f"{problem.question}{self.separator}{self.instruction}"
        return encode_user_turn(self.tokenizer, text)

    def grade(self, problem: Question, response_text: str, truncated: bool) -> Graded:
        """Grades a response.

        Args:
          problem: the question.
          response_text: what came after the prompt.
          truncated: whether the length limit stopped the response, which is then not
            correct.

        Returns:
          The grade; `format_ok` says that a final answer was found, right or wrong.
        """
        found = self._graded(problem, response_text)
        return replace(found, correct=found.correct and not truncated)

    def _graded(self, problem: Question, text: str) -> Graded:
        """The grade of a whole response; a task with other answers has its own."""
        grade = grade_final_answer(
            text,
            problem.answer,
            extract=self.extract,
            verify=self.verify,
            policy=self.policy,
            reasoning=self._opened(problem),
        )
        return Graded(
            correct=grade.outcome == RIGHT,
            format_ok=grade.parsed is not None,
            parsed=grade.parsed,
            failed=grade.outcome == FAILED,
            unchecked=grade.unchecked,
        )

    def grade_ahead(self, problems: Sequence[Question], texts: Sequence[str]) -> None:
        """Checks by algebra, all at once, what `grade` will ask for one by one.

        Args:
          problems: the question of each response.
          texts: the responses.
        """
        if not isinstance(self.verify, MathVerifier):
            return
        found = [
            compare_final_answer(
                text,
                problem.answer,
                extract=self.extract,
                policy=self.policy,
                reasoning=self._opened(problem),
            )
            for problem, text in zip(problems, texts, strict=True)
        ]
        pairs = [
            (x.gold, x.answer, self.policy) for x in found if isinstance(x, Undecided)
        ]
        # `grade` says so once more, for the responses that need a worker.
        with contextlib.suppress(WorkerError):
            self.verify.many(pairs)

    def same_answer(self, first: str, second: str) -> bool:
        """Whether two answers are one in a vote.

        Args:
          first: an answer.
          second: another.

        Returns:
          True if they are equal, as an answer and a reference are, in one direction.
        """
        pairs = ((first, second), (second, first))
        return any(self._equal(*pair) for pair in pairs)

    def _equal(self, gold: str, answer: str) -> bool:
        grade = grade_final_answer(
            answer,
            gold,
            extract=str,
            verify=self.verify,
            policy=self.policy,
            reasoning=False,
        )
        return grade.outcome == RIGHT

    def _opened(self, problem: Question) -> bool | None:
        """Whether responses begin inside reasoning, None if they may."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            return self.reasoning  # a plain prompt ends with "Answer:"
        if self.reasoning is None and "_reasoning" not in self.__dict__:
            end = self.tokenizer.decode(self.prompt_tokens(problem)[-16:]).rstrip()
            opened = True if end.endswith("<think>") else None  # by every prompt
            object.__setattr__(self, "_reasoning", opened)
        return self.__dict__.get("_reasoning", self.reasoning)


def ungradable(
    questions: Sequence[Question], policy: AnswerPolicy = USUAL
) -> dict[int, str]:
    """The questions whose reference cannot be graded against, with the reason.

    Args:
      questions: of a set.
      policy: of the task.

    Returns:
      problem_id -> why.

    Example:
      >>> ungradable([Question(0, "1 + 1?", "2"), Question(1, "?", "(2, 3")])
      {1: "the reference '(2, 3' cannot be read: a bracket is not closed"}
    """
    reasons = {q.problem_id: q.unreadable(policy) for q in questions}
    return {number: reason for number, reason in reasons.items() if reason is not None}


def all_eos_token_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a response: `eos_token_ids` if the tokenizer has several.

    Args:
      tokenizer: of the model.

    Returns:
      The ids.
    """
    several = getattr(tokenizer, "eos_token_ids", None)
    return (tokenizer.eos_token_id,) if several is None else tuple(several)


def encode_user_turn(tokenizer: Tokenizer, text: str) -> list[int]:
    r"""Ids of a prompt that asks for a response to a text.

    A chat of one user message if the tokenizer has a chat template, so that control
    tokens spelled in the text stay text; otherwise the text, then `\n\nAnswer:`.

    Args:
      tokenizer: text to ids.
      text: the user's message.

    Returns:
      The ids.
    """
    if getattr(tokenizer, "chat_template", None) is not None:
        chat = cast(Any, tokenizer)
        ids: list[int] = chat.encode_chat([{"role": "user", "content": text}])
        return ids
    plain = f"{text}\n\nAnswer:"
    # Models trained with a BOS before every text need it.
    encode = getattr(tokenizer, "encode_prompt", tokenizer.encode)
    return cast(list[int], encode(plain))
