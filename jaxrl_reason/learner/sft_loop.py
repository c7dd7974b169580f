"""The loop of supervised fine-tuning: rows, evaluation, checkpoints."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.sft import Example, SFTLearner, sft_update
from jaxrl_reason.learner.state import TrainState, abstract
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import Pairs, Row, finish_metrics
from jaxrl_reason.runs.update_guard import check_finite


@dataclass(frozen=True)
class SFTPosition:
    """How far a loop is.

    Attributes:
      step: updates done; those that were skipped count here, but not in the state.
      pending: metric pairs of each update since the last row.
      tokens: of these updates.
    """

    step: int = 0
    pending: tuple[Pairs, ...] = ()
    tokens: int = 0


def train_sft(
    learner: SFTLearner,
    state: TrainState,
    examples: Callable[[int], Sequence[Example]],
    hooks: Hooks,
    position: SFTPosition | None = None,
) -> TrainState:
    """Runs supervised updates up to `settings.updates`.

    Args:
      learner: the compiled functions.
      state: to start from; donated.
      examples: update number -> its examples; a function of only the number, so that a
        resumed run gets the same ones.
      hooks: of the run.
      position: of `resume_sft`; the beginning if None.
    """
    at = position or SFTPosition()
    last = learner.settings.updates
    score: float | None = None
    learner = replace(learner, update=hooks.watch(learner.update, "model"))
    hooks.hold(at.step)
    start, before = time.perf_counter(), at.tokens
    while at.step < last and not hooks.interrupt.requested:
        began = time.perf_counter()
        with hooks.profiled(at.step + 1):
            state, pairs, n = sft_update(learner, state, examples(at.step))
        at = SFTPosition(at.step + 1, (*at.pending, pairs), at.tokens + n)
        # Reading the metrics waits for the device, so it is done only now and then.
        if at.step % hooks.log_every == 0 or at.step == last:
            row = mean_row(at.pending)
            seconds = time.perf_counter() - start
            row |= {
                "sft/learning_rate": float(learner.learning_rate(at.step - 1)),
                "sft/tokens": at.tokens,
                "sft/tokens_per_s": (at.tokens - before) / seconds,
                "time/sft_s": seconds,
            }
            if hooks.due(at.step, last) and hooks.evaluate:
                row |= hooks.evaluate(state.params)
            score = row.get("heldout/accuracy")
            hooks.record(at.step, row)
            start, before, at = time.perf_counter(), 0, SFTPosition(at.step)
        save = partial(save_sft, hooks, state, at, score)
        hooks.check({"model": state}, save, wait=at.step == last)
        if saved := hooks.save_due(at.step, score):
            save()
        # A copy of every update would take longer than most updates, which end in time.
        slow = 4 * (time.perf_counter() - began) > hooks.interrupt.grace
        kept = partial(sft_contents, state, at)
        hooks.hold(at.step, kept if slow and not saved else None)
        hooks.checkpoints.poll()
        score = None
    if at.step not in hooks.checkpoints.steps():
        save_sft(hooks, state, at)
    return state


def mean_row(pending: Sequence[Any]) -> Row:
    """Mean over updates of their metrics; a name may be missing in some."""
    rows = [finish_metrics(pairs, "sft") for pairs in jax.device_get(list(pending))]
    names = {name for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}


def save_sft(
    hooks: Hooks, state: TrainState, at: SFTPosition, score: float | None = None
) -> None:
    """Saves the state of the supervised stage; its examples depend only on the step.

    Raises:
      NotFiniteError: it has numbers that are not finite.
    """
    check_finite({"model": state})
    contents = sft_contents(state, at)
    hooks.checkpoints.save(**contents, fingerprint=hooks.fingerprint, score=score)


def sft_contents(state: TrainState, at: SFTPosition) -> dict[str, Any]:
    """What a checkpoint holds, as arguments of `CheckpointFolder.save`."""
    pending = jax.device_get(list(at.pending))
    return {
        "step": at.step,
        "state": state,
        "extra": {"tokens": at.tokens},
        "arrays": {
            name: np.array([pairs[name] for pairs in pending])  # [updates, 2]
            for name in (pending[0] if pending else ())
        },
    }


def resume_sft(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: TrainState,
    step: int | None = None,
) -> tuple[TrainState, SFTPosition]:
    """Continues the supervised stage from a checkpoint (the newest if step is None)."""
    found = checkpoints.restore(abstract(state), fingerprint, step)
    # Older checkpoints have no pending updates.
    updates = zip(*found.arrays.values(), strict=True)
    pending = tuple(
        dict(zip(found.arrays, map(tuple, rows), strict=True)) for rows in updates
    )
    at = SFTPosition(found.step, pending, found.extra.get("tokens", 0))
    return found.state, at
