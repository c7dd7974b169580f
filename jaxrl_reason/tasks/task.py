"""The interface of a task for the training loop."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxrl_reason.text.tokenizer import Tokenizer

ProblemT_contra = TypeVar("ProblemT_contra", contravariant=True)


@dataclass(frozen=True)
class Graded:
    """A task's grade of one response.

    Attributes:
      correct: whether the response solves the problem; never True if truncated.
      format_ok: whether the response has the task's format.
      parsed: the graded answer, None if there was none.
      failed: whether the grader failed, which is not the same as a wrong answer.
      unchecked: whether it is not correct because checking the answer ran into a bound.
      parts: of the reward, from a task that gives rewards.
      error: what went wrong, if the grader failed and can say so.
    """

    correct: bool
    format_ok: bool
    parsed: str | None
    failed: bool = False
    unchecked: bool = False
    parts: Mapping[str, float] | None = None
    error: str | None = None


@dataclass(frozen=True)
class ResponseText:
    """A response as graders get it.

    Attributes:
      text: as the tokenizer decodes it.
      length: tokens.
      truncated: whether the length limit stopped it.
    """

    text: str
    length: int = 0
    truncated: bool = False


def without_end(text: str, tokenizer: Tokenizer) -> str:
    """A response without the text of its EOS token, if there is any.

    Args:
      text: of a response, as the tokenizer decodes it.
      tokenizer: of the model.
    """
    return text.removesuffix(tokenizer.decode([tokenizer.eos_token_id]))


class Task(Protocol[ProblemT_contra]):
    """Turns problems into prompts and grades responses."""

    @property
    def name(self) -> str:
        """Short name, used in files and plots."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back, for prompts and responses."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a response."""

    def prompt_tokens(self, problem: ProblemT_contra) -> list[int]:
        """Token ids of the prompt."""

    def grade(
        self, problem: ProblemT_contra, response_text: str, truncated: bool
    ) -> Graded:
        """Grades a response; `truncated` says that the length limit stopped it."""


@dataclass(frozen=True)
class Step:
    """A step of a response: an action and the state in which it was taken.

    Attributes:
      end: number of characters of the response up to the step's end.
      state: in which the step was taken; equal states compare equal.
      reward: of the step itself, besides the grade of the response.
    """

    end: int
    state: Hashable
    reward: float = 0.0


@runtime_checkable
class SteppedTask(Protocol):
    """A task whose responses consist of steps, for methods with step advantages.

    A `Task` with one more function.
    """

    def steps(self, problem: Any, response_text: str) -> Sequence[Step]:
        """The steps in order, at least one; the last has the rest of the text."""


@runtime_checkable
class BoundsGrading(Protocol):
    """A task that says how long its grades may take.

    A `Task` with one more property. The grade of a response that takes longer has
    failed; without it that is ten minutes.
    """

    @property
    def grade_seconds(self) -> float:
        """Seconds of wall-clock time per response."""


@runtime_checkable
class GradesAhead(Protocol):
    """A task that can prepare the grades of many responses at once.

    A `Task` with one more function.
    """

    def grade_ahead(self, problems: Sequence[Any], texts: Sequence[str]) -> None:
        """Prepares the grades of responses, each with its problem."""


@runtime_checkable
class GradesTogether(Protocol):
    """A task that grades many responses at once, and may give rewards.

    A `Task` with more functions.
    """

    @property
    def needs_devices(self) -> bool:
        """Whether grading runs programs on this program's devices."""

    def grade_together(
        self, problems: Sequence[Any], responses: Sequence[ResponseText], step: int = 0
    ) -> list[Graded]:
        """The grades of responses, those to one problem side by side."""

    def part_names(self, parts: Sequence[Mapping[str, float] | None]) -> list[str]:
        """The names of the rewards' parts, the same ones from the first call on."""


@runtime_checkable
class MeasuresResponses(Protocol):
    """A task with metrics of its own, which are in the rows of a run.

    A `Task` with one more function. It gets all sampled responses of a step, and those
    of each held-out evaluation; the numbers it returns are `task/<name>` and
    `heldout/<name>` in the rows.
    """

    def measure(
        self, problems: Sequence[Any], responses: Sequence[ResponseText]
    ) -> Mapping[str, float]:
        """Numbers by name, of responses, each with its problem."""


def failed_grade(error: str) -> Graded:
    """The grade of a response that could not be graded.

    Args:
      error: what went wrong.

    Example:
      >>> failed_grade("no").failed
      True
    """
    return Graded(correct=False, format_ok=False, parsed=None, failed=True, error=error)


@dataclass(frozen=True)
class TaskWrapper:
    """A task with other prompts and the same grades: override `prompt_tokens`.

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
        """Grades as the task inside does."""
        return self.task.grade(problem, response_text, truncated)
