"""Where a loop gets its problems from: streams of batches that a run can resume."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from jaxrl_reason.rl.pass_rate_filter import pass_rates
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row


class ProblemBatches(Protocol):
    """An endless, resumable stream of batches of problems."""

    def __iter__(self) -> Iterator[Sequence[Any]]: ...

    def __next__(self) -> Sequence[Any]: ...

    def get_state(self) -> dict[str, Any]:
        """JSON-able position of the stream."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves the stream to a position."""


@runtime_checkable
class AdaptiveBatches(ProblemBatches, Protocol):
    """A stream that depends on the outcomes so far, which its state then includes."""

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> Row:
        """Receives the outcomes of a step; returns metrics for the step's row.

        Args:
          problem_ids: [N] of all groups sampled in the step, before any filter.
          num_correct: [N] right answers.
          num_samples: [N] answers that could be graded; 0 if the grader always failed.
        """


def tell_source(problems: ProblemBatches, fresh: Rollouts) -> Row:
    """Passes the outcomes to an adaptive stream; returns its part of the row."""
    if not isinstance(problems, AdaptiveBatches):
        return {}
    return problems.observe(*pass_rates(fresh))
