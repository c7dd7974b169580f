"""The loop around the steps: logging, evaluation, checkpoints, interrupts.

A loop returns when its steps are done or an interrupt was requested; in both cases it
has just saved a checkpoint from which the next run can continue.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from jaxrl_reason.learner.state import TrainState, abstract
from jaxrl_reason.rl.collect import NO_BATCH
from jaxrl_reason.rl.iteration import model_params, train_step
from jaxrl_reason.rl.problem_batches import ProblemBatches
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.rollouts_ahead import DrawnBatch, RolloutsAhead
from jaxrl_reason.runs.checkpoints import CheckpointFolder, Restored
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.runs.monitor import CompileCounter
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.update_guard import check_finite

Params = Any
Arrays = dict[str, np.ndarray]
# Prefixes of arrays in a checkpoint: of batches that were drawn ahead (a number and /
# follow) and of responses that go on. The surplus has none.
_AHEAD, _UNFINISHED = "ahead/", "unfinished/"


def train_rl(
    learner: RLLearner, state: RLState, problems: ProblemBatches, hooks: Hooks
) -> RLState:
    """Runs RL iterations up to `settings.steps`, from the state's step.

    Each is `rl_iteration`, whose rollouts may have been drawn before (`RolloutsAhead`).
    """
    timer = PhaseTimer()
    learner = watched(learner, hooks)
    with (
        CompileCounter() as compiles,
        RolloutsAhead(learner, state, problems, hooks.annotate) as ahead,
    ):

        def save(now: RLState, score: float | None = None) -> None:
            save_rl(hooks, ahead.held(now), problems, score)

        state = replace(state, ahead=())
        hold_rl(hooks, learner, state, problems, saved=False)
        while state.step < learner.settings.steps and not hooks.interrupt.requested:
            start, mark = time.perf_counter(), compiles.count
            try:
                with hooks.profiled(state.step + 1):
                    drawn = ahead.take(state, timer)
                    collected = drawn.collected
                    state, row = train_step(learner, state, collected, timer)
            except NO_BATCH as error:
                save(state)  # keep what was learnt
                hooks.checkpoints.wait()
                if not hooks.interrupt.requested:
                    raise
                say(f"step {state.step + 1} was left out, as the run stops: {error}")
                break
            row |= drawn.row | timer.take()
            row |= rl_throughput(row, collected.fresh, collected.rollouts)
            if hooks.due(state.step, learner.settings.steps) and hooks.evaluate:
                with timer("evaluate"):
                    row |= hooks.evaluate(model_params(learner, state))
                row |= timer.take()
                if hooks.show_samples is not None:
                    hooks.show_samples(state.step, collected.fresh)
            row["time/compiles"] = compiles.since(mark)
            row["time/step_s"] = time.perf_counter() - start
            hooks.record(state.step, row)
            score = row.get("heldout/accuracy")
            hooks.check(trained_models(state), partial(save, state, score))
            if saved := hooks.save_due(state.step, score):
                save(state, score)
            hold_rl(hooks, learner, state, problems, saved=saved)
            hooks.checkpoints.poll()
        state = ahead.held(state)
    if state.step not in hooks.checkpoints.steps():
        save_rl(hooks, state, problems)
    return state


def watched(learner: RLLearner, hooks: Hooks) -> RLLearner:
    """The learner with the updates of all its models watched."""
    return replace(
        learner,
        update=hooks.watch(learner.update, "policy"),
        components=tuple(c.watched(hooks.watch) for c in learner.components),
    )


def trained_models(state: RLState) -> dict[str, TrainState]:
    """The states of the models that a run trains, by name."""
    return {"policy": state.policy, **state.models}


def rl_throughput(row: Row, fresh: Rollouts, trained: Rollouts) -> Row:
    """Sampled and trained tokens, per step and per second; graded responses."""
    sampled, learnt = float(fresh.lengths.sum()), float(trained.lengths.sum())
    grading = row["time/grade_s"] + row.get("time/grade_ahead_s", 0.0)
    return {
        "rollout/tokens": sampled,
        "rollout/graded_per_s": fresh.lengths.size / max(grading, 1e-9),
        "train/tokens": learnt,
        "rollout/tokens_per_s": sampled / row["time/rollout_s"],
        "train/tokens_per_s": learnt / row["time/train_s"],
    }


def save_rl(
    hooks: Hooks, state: RLState, problems: ProblemBatches, score: float | None = None
) -> None:
    """Saves all that the next step depends on; the reference is the initial policy.

    Raises:
      NotFiniteError: a model has numbers that are not finite.
    """
    check_finite(trained_models(state))
    contents = rl_contents(state, problems)
    fingerprint = hooks.fingerprint
    hooks.checkpoints.save(**contents, fingerprint=fingerprint, score=score)


def hold_rl(
    hooks: Hooks,
    learner: RLLearner,
    state: RLState,
    problems: ProblemBatches,
    *,
    saved: bool,
) -> None:
    """Keeps a step for the interrupt.

    Not with rollouts drawn ahead: those of the next steps belong to its checkpoint,
    too, and may not be complete.

    Args:
      hooks: of the run.
      learner: the compiled functions.
      state: after the step.
      problems: at the same place.
      saved: the step has a checkpoint, or one is being written.
    """
    whole = saved or learner.settings.async_level
    hooks.hold(state.step, None if whole else lambda: rl_contents(state, problems))


def rl_contents(state: RLState, problems: ProblemBatches) -> dict[str, Any]:
    """What a checkpoint holds, as arguments of `CheckpointFolder.save`."""
    arrays = dict(state.surplus.arrays()) if state.surplus is not None else {}
    if state.unfinished is not None:
        arrays |= _named(_UNFINISHED, state.unfinished.arrays())
    for i, batch in enumerate(state.ahead):
        arrays |= _named(f"{_AHEAD}{i}/", batch.arrays())
    return {
        "step": state.step,
        "state": trained_models(state),
        "extra": {
            "draws": state.draws,
            "controls": dict(state.controls),
            "problems": problems.get_state(),
            "ahead": [batch.counts() for batch in state.ahead],
        },
        "arrays": arrays,
    }


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
    state = restore_rl(checkpoints, fingerprint, state, problems, step)
    checkpoints.drop_after(state.step)
    return state


def restore_rl(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: RLState,
    problems: ProblemBatches,
    step: int | None = None,
) -> RLState:
    """The state in a checkpoint; as `resume_rl`, but later ones stay where they are."""
    models = trained_models(state)
    found = checkpoints.restore(abstract(models), fingerprint, step)
    with found.in_form():
        return _as_saved(found, state, problems)


def _as_saved(found: Restored, state: RLState, problems: ProblemBatches) -> RLState:
    problems.set_state(found.extra["problems"])
    own = {
        name: x
        for name, x in found.arrays.items()
        if not name.startswith((_AHEAD, _UNFINISHED))
    }
    unfinished = _without(_UNFINISHED, found.arrays)
    return RLState(
        policy=found.state["policy"],
        models={name: found.state[name] for name in state.models},
        reference=state.reference,
        base=state.base,
        controls=found.extra["controls"],
        surplus=Rollouts.from_arrays(own) if own else None,
        step=found.step,
        draws=found.extra["draws"],
        unfinished=Rollouts.from_arrays(unfinished) if unfinished else None,
        ahead=tuple(
            DrawnBatch.restore(counts, _without(f"{_AHEAD}{i}/", found.arrays))
            for i, counts in enumerate(found.extra.get("ahead", []))
        ),
    )


def _named(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": x for name, x in arrays.items()}


def _without(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays whose names have the prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): x
        for name, x in arrays.items()
        if name.startswith(prefix)
    }
