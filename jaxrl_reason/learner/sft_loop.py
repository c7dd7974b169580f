"""The loop of supervised fine-tuning: rows, evaluation, checkpoints."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax

from jaxrl_reason.learner.sft import Example, SFTLearner, sft_update
from jaxrl_reason.learner.state import TrainState, abstract
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import Row, finish_metrics
from jaxrl_reason.runs.update_guard import check_finite


def train_sft(
    learner: SFTLearner,
    state: TrainState,
    examples: Callable[[int], Sequence[Example]],
    hooks: Hooks,
) -> TrainState:
    """Runs supervised updates up to `settings.updates`.

    Args:
      learner: the compiled functions.
      state: to start from; donated.
      examples: update number -> its examples; a function of only the number, so that a
        resumed run gets the same ones.
      hooks: of the run.
    """
    step, last = int(state.step), learner.settings.updates
    pending: list[Any] = []
    score: float | None = None
    learner = replace(learner, update=hooks.watch(learner.update, "model"))
    start, tokens = time.perf_counter(), 0
    while step < last and not hooks.interrupt.requested:
        with hooks.profiled(step + 1):
            state, pairs, n = sft_update(learner, state, examples(step))
        step, tokens = step + 1, tokens + n
        pending.append(pairs)
        # Reading the metrics waits for the device, so it is done only now and then.
        if step % hooks.log_every == 0 or step == last:
            row = mean_row(pending)
            seconds = time.perf_counter() - start
            row |= {
                "sft/learning_rate": float(learner.learning_rate(step - 1)),
                "sft/tokens": tokens,
                "sft/tokens_per_s": tokens / seconds,
                "time/sft_s": seconds,
            }
            if hooks.due(step, last) and hooks.evaluate:
                row |= hooks.evaluate(state.params)
            score = row.get("heldout/accuracy")
            hooks.record(step, row)
            start, tokens, pending = time.perf_counter(), 0, []
        save = partial(save_sft, hooks, state, score)
        hooks.check({"model": state}, save, wait=step == last)
        if hooks.save_due(step, score):
            save()
        hooks.checkpoints.poll()
        score = None
    if step not in hooks.checkpoints.steps():
        save_sft(hooks, state)
    return state


def mean_row(pending: Sequence[Any]) -> Row:
    """Mean over updates of their metrics; a name may be missing in some."""
    rows = [finish_metrics(pairs, "sft") for pairs in jax.device_get(list(pending))]
    names = {name for row in rows for name in row}
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}


def save_sft(hooks: Hooks, state: TrainState, score: float | None = None) -> None:
    """Saves the state of the supervised stage; its examples depend only on the step.

    Raises:
      NotFiniteError: it has numbers that are not finite.
    """
    check_finite({"model": state})
    hooks.checkpoints.save(
        int(state.step), state, fingerprint=hooks.fingerprint, score=score
    )


def resume_sft(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    state: TrainState,
    step: int | None = None,
) -> TrainState:
    """Continues the supervised stage from a checkpoint (the newest if step is None)."""
    found: TrainState = checkpoints.restore(abstract(state), fingerprint, step).state
    return found
