"""Questions with a final answer that can be checked: the task of most benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.final_answer import (
    FAILED,
    RIGHT,
    Verify,
    grade_final_answer,
)
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


@dataclass(frozen=True)
class QuestionTask:
    """Asks a question, extracts the final answer and compares it with the reference.

    Attributes:
      tokenizer: text to ids and back; with `encode_chat` and a chat template the prompt
        becomes a chat.
      instruction: says how to mark the final answer; follows the question.
      name: short name, used in files and plots.
      extract: finds the final answer in a response.
      verify: compares answers of different form by algebra, see `MathVerifier`.
      leading_zeros: whether 025 is read as 25.
      separator: text between question and instruction.
    """

    tokenizer: Tokenizer
    instruction: str
    name: str
    extract: Callable[[str], str | None] = marked_answer
    verify: Verify | None = None
    leading_zeros: bool = False
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
        grade = grade_final_answer(
            response_text,
            problem.answer,
            extract=self.extract,
            verify=self.verify,
            leading_zeros=self.leading_zeros,
        )
        return Graded(
            correct=grade.outcome == RIGHT and not truncated,
            format_ok=grade.parsed is not None,
            parsed=grade.parsed,
            failed=grade.outcome == FAILED,
        )


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
