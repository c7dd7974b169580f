"""The loop around the steps: logging, evaluation, checkpoints, interrupts.

A loop returns when its steps are done or an interrupt was requested; in both cases it
has just saved a checkpoint from which the next run can continue.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from jaxrl_reason.learner.state import abstract
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.iteration import model_params, rl_iteration
from jaxrl_reason.rl.pass_rate_filter import pass_rates
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.runs.monitor import CompileCounter

Params = Any


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


def train_rl(
    learner: RLLearner, state: RLState, problems: ProblemBatches, hooks: Hooks
) -> RLState:
    """Runs RL iterations up to `settings.steps`, from the state's step."""
    timer = PhaseTimer()
    with CompileCounter() as compiles:
        while state.step < learner.settings.steps and not hooks.interrupt.requested:
            start, mark = time.perf_counter(), compiles.count
            try:
                with hooks.profiled(state.step + 1):
                    state, row, collected = rl_iteration(
                        learner, state, problems, timer
                    )
            except NoSignalError:
                save_rl(hooks, state, problems)  # keep what was learnt so far
                raise
            row |= timer.take()
            row |= rl_throughput(row, collected.fresh, collected.rollouts)
            row |= tell_source(problems, collected.fresh)
            if hooks.annotate is not None:
                row |= hooks.annotate(state.step)
            if hooks.due(state.step, learner.settings.steps) and hooks.evaluate:
                with timer("evaluate"):
                    row |= hooks.evaluate(model_params(learner, state))
                row |= timer.take()
                if hooks.show_samples is not None:
                    hooks.show_samples(state.step, collected.fresh)
            row["time/compiles"] = compiles.since(mark)
            row["time/step_s"] = time.perf_counter() - start
            hooks.log.write(state.step, row)
            hooks.progress.update(state.step, row)
            if state.step % hooks.save_every == 0:
                save_rl(hooks, state, problems)
    if state.step not in hooks.checkpoints.steps():
        save_rl(hooks, state, problems)
    return state


def tell_source(problems: ProblemBatches, fresh: Rollouts) -> Row:
    """Passes the outcomes to an adaptive stream; returns its part of the row."""
    if not isinstance(problems, AdaptiveBatches):
        return {}
    return problems.observe(*pass_rates(fresh))


def rl_throughput(row: Row, fresh: Rollouts, trained: Rollouts) -> Row:
    """Sampled and trained tokens, per step and per second, without prompts."""
    sampled, learnt = float(fresh.lengths.sum()), float(trained.lengths.sum())
    return {
        "rollout/tokens": sampled,
        "train/tokens": learnt,
        "rollout/tokens_per_s": sampled / row["time/rollout_s"],
        "train/tokens_per_s": learnt / row["time/train_s"],
    }


def save_rl(hooks: Hooks, state: RLState, problems: ProblemBatches) -> None:
    """Saves all that the next step depends on; the reference is the initial policy."""
    hooks.checkpoints.save(
        state.step,
        {"policy": state.policy, **state.models},
        extra={
            "draws": state.draws,
            "controls": dict(state.controls),
            "problems": problems.get_state(),
        },
        fingerprint=hooks.fingerprint,
        arrays=state.surplus.arrays() if state.surplus is not None else {},
    )


def resume_rl(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: RLState,
    problems: ProblemBatches,
    step: int | None = None,
) -> RLState:
    """Continues from a checkpoint with the tokens, batches and updates of one long run.

    Args:
      checkpoints: of the RL stage; those after the chosen one are moved aside.
      fingerprint: settings that the checkpoint must share.
      state: an initial state of the same run, for shapes and shardings.
      problems: moved to the position in the checkpoint.
      step: of the checkpoint, the newest if None.
    """
    models = {"policy": state.policy, **state.models}
    found = checkpoints.restore(abstract(models), fingerprint, step)
    checkpoints.drop_after(found.step)
    problems.set_state(found.extra["problems"])
    return RLState(
        policy=found.state["policy"],
        models={name: found.state[name] for name in state.models},
        reference=state.reference,
        base=state.base,
        controls=found.extra["controls"],
        surplus=Rollouts.from_arrays(found.arrays) if found.arrays else None,
        step=found.step,
        draws=found.extra["draws"],
    )
