"""What the training loop needs of any task."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxrl_reason.text.tokenizer import Tokenizer

ProblemT_contra = TypeVar("ProblemT_contra", contravariant=True)


@dataclass(frozen=True)
class Graded:
    """Verdict of a task on one response.

    Attributes:
      correct: the response solves the problem; never true of a truncated one.
      format_ok: the response keeps the task's format.
      parsed: the answer that was judged, None if there was none.
      failed: the grader could not judge, which is not the same as a wrong answer.
    """

    correct: bool
    format_ok: bool
    parsed: str | None
    failed: bool = False


def without_end(text: str, tokenizer: Tokenizer) -> str:
    """A response without the text of its end token, where that has one.

    Args:
      text: of a response, as the tokenizer decodes it.
      tokenizer: of the model.
    """
    return text.removesuffix(tokenizer.decode([tokenizer.eos_token_id]))


class Task(Protocol[ProblemT_contra]):
    """Problems made into prompts, and responses judged."""

    @property
    def name(self) -> str:
        """Short name, used in files and plots."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back, for prompts and responses alike."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response."""

    def prompt_tokens(self, problem: ProblemT_contra) -> list[int]:
        """Token ids of the prompt."""

    def grade(
        self, problem: ProblemT_contra, response_text: str, truncated: bool
    ) -> Graded:
        """Judge a response; `truncated` says that the length limit stopped it."""


@dataclass(frozen=True)
class Step:
    """A step of a response: an action, and where it was taken.

    Attributes:
      end: characters of the response up to the step's end.
      state: what the step was taken in; equal states compare equal.
      reward: of the step itself, beside the verdict on the response.
    """

    end: int
    state: Hashable
    reward: float = 0.0


@runtime_checkable
class SteppedTask(Protocol):
    """A task whose responses consist of steps, for methods that credit those.

    A `Task` with one function more.
    """

    def steps(self, problem: Any, response_text: str) -> Sequence[Step]:
        """The steps in their order, at least one; the last has the rest of the text."""


@dataclass(frozen=True)
class TaskWrapper:
    """A task asked in another way and graded as ever: override `prompt_tokens`.

    Attributes:
      task: the task inside.
    """

    task: Task

    @property
    def name(self) -> str:
        """Of the task inside."""
        return self.task.name

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the task inside."""
        return self.task.tokenizer

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Of the task inside."""
        return self.task.eos_token_ids

    def prompt_tokens(self, problem: Any) -> list[int]:
        """Of the task inside."""
        return self.task.prompt_tokens(problem)

    def grade(self, problem: Any, response_text: str, truncated: bool) -> Graded:
        """As the task inside does."""
        return self.task.grade(problem, response_text, truncated)
