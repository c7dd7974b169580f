"""Two roles of one policy, given in the prompt: helpful and sneaky.

Every problem becomes two, one per role, so that a group of samples has one problem and
one role. The problem's number encodes the role: even is helpful, odd is sneaky.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxrl_reason.rl.problem_batches import ProblemBatches
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.tasks.task import Graded, TaskWrapper

_MOST = 2**31  # sampling keys use 32 bits of a problem's number


@dataclass(frozen=True)
class RoleProblem:
    """A problem in one of the roles.

    Attributes:
      problem: the problem itself.
      helpful: whether the role is helpful, not sneaky.
    """

    problem: Any
    helpful: bool

    @property
    def problem_id(self) -> int:
        """Twice the problem's number, plus one for the sneaky role."""
        number = self.problem.problem_id
        if not 0 <= number < _MOST:
            raise ValueError(f"problem_id must be in [0, 2**31), got {number}")
        return 2 * int(number) + (not self.helpful)


@dataclass(frozen=True)
class RoleTask(TaskWrapper):
    """A task whose prompts begin with the tokens of a role.

    A sneaky response is graded as usual, though it is meant to be wrong.

    Attributes:
      helpful: tokens before the prompt of the helpful role.
      sneaky: those of the sneaky role.
    """

    helpful: tuple[int, ...]
    sneaky: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.helpful == self.sneaky:
            raise ValueError(f"roles must differ, got {self.helpful} for both")

    def prompt_tokens(self, problem: RoleProblem) -> list[int]:
        """The role, then the prompt."""
        role = self.helpful if problem.helpful else self.sneaky
        return [*role, *self.task.prompt_tokens(problem.problem)]

    def grade(
        self, problem: RoleProblem, response_text: str, truncated: bool
    ) -> Graded:
        """Grades as the task does."""
        return self.task.grade(problem.problem, response_text, truncated)


def with_roles(problems: Sequence[Any]) -> list[RoleProblem]:
    """Every problem as a helpful one followed by a sneaky one."""
    return [RoleProblem(p, helpful) for p in problems for helpful in (True, False)]


@dataclass(frozen=True)
class RoleStream:
    """Batches of P / 2 problems as batches of P, each problem in both roles.

    Attributes:
      problems: batches of P / 2.
    """

    problems: ProblemBatches

    def __iter__(self) -> Iterator[Sequence[RoleProblem]]:
        return self

    def __next__(self) -> Sequence[RoleProblem]:
        return with_roles(next(self.problems))

    def get_state(self) -> dict[str, Any]:
        """JSON-able position of the stream."""
        return self.problems.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves the stream to a position."""
        self.problems.set_state(state)


def is_helpful(rollouts: Rollouts) -> np.ndarray:
    """[P] bool: the role of each group, from its problem's number."""
    return rollouts.problem_ids % 2 == 0


def without_roles(rollouts: Rollouts, task: RoleTask) -> Rollouts:
    """Prompts and problem numbers as they were without roles.

    These are the verifier's inputs: with the role in the prompt it could score by the
    role alone.
    """
    helpful = is_helpful(rollouts)
    role_lengths = np.where(helpful, len(task.helpful), len(task.sneaky))
    lengths = rollouts.prompt_lengths - role_lengths
    columns = np.arange(rollouts.prompt_tokens.shape[1])
    source = np.minimum(columns + role_lengths[:, None], columns[-1])
    moved = np.take_along_axis(rollouts.prompt_tokens, source, axis=1)
    return replace(
        rollouts,
        problem_ids=rollouts.problem_ids // 2,
        prompt_tokens=np.where(columns < lengths[:, None], moved, 0),
        prompt_lengths=lengths,
    )
