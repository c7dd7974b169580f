"""Rollouts drawn ahead: the sampler works on later steps while the trainer trains.

With `async_level` k, the policy of step i - k draws the groups of step i, and the first
policy of a loop its first k + 1 batches. That does not depend on who is faster: a run
with the same settings gives the same bits, also after a resume. k = 0 is the
synchronous loop and draws nothing ahead.

Between a thread that draws and one that trains, the order of programs is not fixed. On
one device, or with an engine or devices of the sampler's own, they overlap; programs of
several devices must start in one order on all of them, so there the two take turns.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.rl.collect import Collected
from jaxrl_reason.rl.graded_groups import grades_on_devices
from jaxrl_reason.rl.iteration import collect
from jaxrl_reason.rl.problem_batches import ProblemBatches, tell_source
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.sampler import RolloutEngine
from jaxrl_reason.sharding.processes import count

_PARTS = ("rollouts", "fresh", "surplus", "unfinished")


@dataclass(frozen=True)
class DrawnBatch:
    """The groups of one step, drawn before it.

    Attributes:
      collected: the groups.
      row: what is known of them: phases of drawing, the source's and the run's columns.
    """

    collected: Collected
    row: Row

    def counts(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        c = self.collected
        return {"rounds": c.rounds, "accepted": c.accepted, "row": self.row}

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, the other part."""
        parts = {name: getattr(self.collected, name) for name in _PARTS}
        return {
            f"{part}/{name}": array
            for part, groups in parts.items()
            if groups is not None
            for name, array in groups.arrays().items()
        }

    @classmethod
    def restore(
        cls, counts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> Self:
        """The inverse of `counts` and `arrays`."""
        parts: dict[str, dict[str, np.ndarray]] = {}
        for place, array in arrays.items():
            part, _, name = place.partition("/")
            parts.setdefault(part, {})[name] = array
        groups = {part: Rollouts.from_arrays(parts[part]) for part in parts}
        collected = Collected(
            rollouts=groups["rollouts"],
            fresh=groups["fresh"],
            surplus=groups.get("surplus"),
            rounds=counts["rounds"],
            accepted=counts["accepted"],
            unfinished=groups.get("unfinished"),
        )
        return cls(collected, dict(counts["row"]))


class RolloutsAhead:
    """The batches of a run in the order of its steps, up to `async_level` ahead.

    Args:
      learner: the compiled functions.
      state: of the run; what was drawn ahead of it comes first.
      problems: the run's stream.
      annotate: (RL step, all groups drawn for it) -> further columns of its row.
    """

    def __init__(
        self,
        learner: RLLearner,
        state: RLState,
        problems: ProblemBatches,
        annotate: Callable[[int, Rollouts], Row] | None = None,
    ) -> None:
        self._learner, self._problems = learner, problems
        self._annotate = annotate
        self._level = learner.settings.async_level
        self._overlaps = self._level > 0 and overlaps(learner)
        self._executor: Executor = (
            ThreadPoolExecutor(1, "rollouts") if self._overlaps else _InTurn()
        )
        self._pending = deque(_InTurn().submit(lambda x=x: x) for x in state.ahead)
        self._next_step = state.step + len(state.ahead)
        # Of the last batch that was drawn; only drawing reads and writes them.
        drawn = [batch.collected for batch in state.ahead]
        newest = drawn[-1] if drawn else state
        self._surplus, self._unfinished = newest.surplus, newest.unfinished
        self._draws = state.draws + sum(c.rounds for c in drawn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # After an error or an interrupt nobody waits for what is being drawn.
        self._executor.shutdown(wait=exc[0] is None, cancel_futures=True)

    def take(self, state: RLState, timer: PhaseTimer) -> DrawnBatch:
        """The batch of the state's step; starts what its policy draws.

        Args:
          state: of the run.
          timer: records the seconds of "wait", those that drawing was behind.

        Raises:
          NoSignalError: as `collect`, once it is the failed batch's turn.
        """
        last = min(state.step + self._level, self._learner.settings.steps - 1)
        if self._next_step <= last:
            policy = _copy(state) if self._overlaps else state
            for step in range(self._next_step, last + 1):
                task = self._executor.submit(self._draw, policy, step)
                self._pending.append(task)
            self._next_step = last + 1
        if not self._level:
            return self._pending.popleft().result()
        with timer("wait"):
            return self._pending.popleft().result()

    def held(self, state: RLState) -> RLState:
        """The state with what is drawn ahead of it, for a checkpoint.

        Waits for what is being drawn. A batch that could not be filled, and those
        after it, are left out: `take` raises for it.
        """
        ahead = []
        for task in self._pending:
            if task.exception() is not None:
                break
            ahead.append(task.result())
        return replace(state, ahead=tuple(ahead))

    def _draw(self, policy: RLState, step: int) -> DrawnBatch:
        timer = PhaseTimer()
        state = replace(
            policy,
            surplus=self._surplus,
            unfinished=self._unfinished,
            draws=self._draws,
        )
        collected = collect(self._learner, state, self._problems, timer)
        self._surplus, self._unfinished = collected.surplus, collected.unfinished
        self._draws += collected.rounds
        row: Row = timer.take()
        row |= tell_source(self._problems, collected.fresh)
        if self._annotate is not None:
            row |= self._annotate(step + 1, collected.fresh)
        return DrawnBatch(collected, row)


def overlaps(learner: RLLearner) -> bool:
    """Whether drawing and training may run at the same time."""
    if count() > 1:
        return False
    if learner.batch_sharding.mesh.size == 1:
        return True
    elsewhere = isinstance(learner.sample, RolloutEngine)
    draws_here = any(component.adds_to_rollouts for component in learner.components)
    return elsewhere and not draws_here and not grades_on_devices(learner.task)


class _InTurn(Executor):
    """Runs a task where it is submitted, before anything else."""

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """The finished task."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # raised where the result is taken
            done.set_exception(error)
        return done


def _copy(state: RLState) -> RLState:
    # What drawing reads; updates donate the policy's arrays.
    policy = jax.tree.map(jnp.copy, replace(state.policy, opt_state=()))
    return replace(state, policy=policy, models={})
