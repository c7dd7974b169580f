"""The loops around the steps: logging, evaluation, checkpoints, leaving when asked.

A loop returns when its steps are done or when an interrupt was requested; either way
the last thing it did was to save a checkpoint that the next run goes on from.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
from numpy.typing import ArrayLike

from jaxrl_reason.training.batch import Rollouts
from jaxrl_reason.training.checkpoints import CheckpointFolder
from jaxrl_reason.training.collect import NoSignalError
from jaxrl_reason.training.interrupt import GracefulInterrupt
from jaxrl_reason.training.metrics import MetricsLog, Row, finish_metrics
from jaxrl_reason.training.monitor import CompileCounter, PhaseTimer
from jaxrl_reason.training.pass_rates import pass_rates
from jaxrl_reason.training.progress import TrainingProgress
from jaxrl_reason.training.rl import rl_iteration
from jaxrl_reason.training.rl_parts import RLParts, RLState
from jaxrl_reason.training.state import TrainState
from jaxrl_reason.training.supervised import (
    Example,
    SupervisedParts,
    supervised_update,
)

Params = Any


class ProblemSource(Protocol):
    """An endless, resumable stream of batches of problems."""

    def __iter__(self) -> Iterator[Sequence[Any]]: ...

    def __next__(self) -> Sequence[Any]: ...

    def get_state(self) -> dict[str, Any]:
        """JSON-able position of the stream."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""


@runtime_checkable
class LearningSource(ProblemSource, Protocol):
    """A source that goes by the outcomes so far, which its state then holds."""

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> Row:
        """Takes the outcomes of a step; returns numbers for the step's row.

        Args:
          problem_ids: [N] of all groups sampled in the step, before any filter.
          num_correct: [N] right answers.
          num_samples: [N] answers that could be judged; 0 if the grader always failed.
        """


@dataclass(frozen=True)
class LoopTools:
    """Where a loop writes, what it asks, and how often.

    Args:
      log: one row a step (the supervised loop: one every `log_every` updates).
      checkpoints: of this stage.
      fingerprint: settings that a resumed run must share.
      progress: the bar.
      interrupt: asked after every step.
      save_every: steps between checkpoints.
      evaluate: params -> metrics, e.g. {"heldout_accuracy": 0.4}.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      show_samples: gets (step, rollouts) at every evaluation.
      log_every: supervised updates between rows.
      annotate: RL step -> what else its row says.
    """

    log: MetricsLog
    checkpoints: CheckpointFolder
    fingerprint: Mapping[str, Any]
    progress: TrainingProgress
    interrupt: GracefulInterrupt
    save_every: int
    evaluate: Callable[[Params], Row] | None = None
    evaluate_every: int = 0
    show_samples: Callable[[int, Rollouts], None] | None = None
    log_every: int = 50
    annotate: Callable[[int], Row] | None = None

    def due(self, step: int, last: int) -> bool:
        """Whether this step is evaluated."""
        if self.evaluate is None or not self.evaluate_every:
            return False
        return step % self.evaluate_every == 0 or step == last


def train_rl(
    parts: RLParts, state: RLState, problems: ProblemSource, tools: LoopTools
) -> RLState:
    """Runs RL iterations up to `settings.steps`, from wherever the state is."""
    timer = PhaseTimer()
    with CompileCounter() as compiles:
        while state.step < parts.settings.steps and not tools.interrupt.requested:
            start, mark = time.perf_counter(), compiles.count
            try:
                state, row, collected = rl_iteration(parts, state, problems, timer)
            except NoSignalError:
                save_rl(tools, state, problems)  # nothing learnt so far is lost
                raise
            row |= timer.take()
            row |= rl_throughput(row, collected.fresh, collected.rollouts)
            row |= tell_source(problems, collected.fresh)
            if tools.annotate is not None:
                row |= tools.annotate(state.step)
            if tools.due(state.step, parts.settings.steps) and tools.evaluate:
                with timer("evaluate"):
                    row |= tools.evaluate(parts.model_params(state))
                row |= timer.take()
                if tools.show_samples is not None:
                    tools.show_samples(state.step, collected.fresh)
            row["compiles"] = compiles.since(mark)
            row["seconds_step"] = time.perf_counter() - start
            tools.log.write(state.step, row)
            tools.progress.update(state.step, row)
            if state.step % tools.save_every == 0:
                save_rl(tools, state, problems)
    if state.step not in tools.checkpoints.steps():
        save_rl(tools, state, problems)
    return state


def tell_source(problems: ProblemSource, fresh: Rollouts) -> Row:
    """Tells a source that learns what became of its problems; its part of the row."""
    if not isinstance(problems, LearningSource):
        return {}
    return problems.observe(*pass_rates(fresh))


def rl_throughput(row: Row, fresh: Rollouts, trained: Rollouts) -> Row:
    """Sampled and trained tokens of one step, and a second; prompts do not count."""
    sampled, learnt = float(fresh.lengths.sum()), float(trained.lengths.sum())
    return {
        "rollout_tokens": sampled,
        "train_tokens": learnt,
        "rollout_tokens_per_second": sampled / row["seconds_rollout"],
        "train_tokens_per_second": learnt / row["seconds_train"],
    }


def save_rl(tools: LoopTools, state: RLState, problems: ProblemSource) -> None:
    """Saves all that the next step depends on; the reference is the primed model."""
    tools.checkpoints.save(
        state.step,
        trained_models(state),
        extra={
            "draws": state.draws,
            "controls": dict(state.controls),
            "problems": problems.get_state(),
        },
        fingerprint=tools.fingerprint,
        arrays=state.surplus.arrays() if state.surplus is not None else {},
    )


def trained_models(state: RLState) -> dict[str, TrainState | None]:
    """The models with an optimiser, by name; a reward model only where there is one."""
    models = {"policy": state.policy, "critic": state.critic}
    if state.reward_model is not None:
        models["reward_model"] = state.reward_model
    return models


def resume_rl(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: RLState,
    problems: ProblemSource,
    step: int | None = None,
) -> RLState:
    """Continues from a checkpoint: the same tokens, batches and updates as without it.

    Args:
      checkpoints: of the RL stage; those after the chosen one are moved aside.
      fingerprint: settings that the checkpoint must share.
      state: a fresh state of the same run, for shapes and shardings.
      problems: moved to where the checkpoint left it.
      step: of the checkpoint, the newest if None.
    """
    found = checkpoints.restore(abstract(trained_models(state)), fingerprint, step)
    checkpoints.drop_after(found.step)
    problems.set_state(found.extra["problems"])
    return RLState(
        policy=found.state["policy"],
        critic=found.state["critic"],
        reward_model=found.state.get("reward_model"),
        reference=state.reference,
        base=state.base,
        controls=found.extra["controls"],
        surplus=Rollouts(**found.arrays) if found.arrays else None,
        step=found.step,
        draws=found.extra["draws"],
    )


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of the arrays of a tree."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
    )


def train_supervised(
    parts: SupervisedParts,
    state: TrainState,
    examples: Callable[[int], Sequence[Example]],
    tools: LoopTools,
) -> TrainState:
    """Runs supervised updates up to `settings.updates`.

    Args:
      parts: the compiled pieces.
      state: donated.
      examples: update number -> its examples; a function of the number alone, so that
        a resumed run sees the same ones.
      tools: where to write.
    """
    step, last = int(state.step), parts.settings.updates
    pending: list[Any] = []
    start, tokens = time.perf_counter(), 0
    while step < last and not tools.interrupt.requested:
        state, pairs, n = supervised_update(parts, state, examples(step))
        step, tokens = step + 1, tokens + n
        pending.append(pairs)
        # Reading the metrics waits for the device, so it happens now and then only.
        if step % tools.log_every == 0 or step == last:
            row = mean_row(pending)
            row["learning_rate"] = float(parts.learning_rate(step - 1))
            row["tokens"], row["seconds"] = tokens, time.perf_counter() - start
            row["tokens_per_second"] = tokens / row["seconds"]
            if tools.due(step, last) and tools.evaluate:
                row |= tools.evaluate(state.params)
            tools.log.write(step, row)
            tools.progress.update(step, row)
            start, tokens, pending = time.perf_counter(), 0, []
        if step % tools.save_every == 0:
            save_supervised(tools, state)
    if step not in tools.checkpoints.steps():
        save_supervised(tools, state)
    return state


def mean_row(pending: Sequence[Any]) -> Row:
    """Mean over updates of their finished metrics; a name may be absent in some."""
    rows = [finish_metrics(pairs) for pairs in jax.device_get(list(pending))]
    names = {name for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}


def save_supervised(tools: LoopTools, state: TrainState) -> None:
    """Saves the state of the supervised stage; its examples follow from the step."""
    tools.checkpoints.save(int(state.step), state, fingerprint=tools.fingerprint)


def resume_supervised(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: TrainState,
    step: int | None = None,
) -> TrainState:
    """Continues the supervised stage from a checkpoint (the newest if step is None)."""
    found: TrainState = checkpoints.restore(abstract(state), fingerprint, step).state
    return found
