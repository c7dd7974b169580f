"""The loop around offline rounds: rows, evaluations, checkpoints, resume."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxrl_reason.learner.state import TrainState, abstract
from jaxrl_reason.rl.collect import NO_BATCH
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Contents, Hooks
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.update_guard import check_finite

# (policy, round index) -> policy, metrics, rollouts. The given policy is not donated.
OneRound = Callable[[TrainState, int], tuple[TrainState, Row, Rollouts]]


def train_rounds(
    one_round: OneRound,
    policy: TrainState,
    hooks: Hooks,
    *,
    rounds: int,
    done: int = 0,
) -> TrainState:
    """Runs rounds `done` to `rounds - 1`, or until an interrupt is requested.

    Args:
      one_round: a round with all but policy and index bound, e.g. a
        `functools.partial` of `iterative_dpo_round` behind a lambda.
      policy: of the previous round.
      hooks: of the run; row and checkpoint i + 1 are those of round i.
      rounds: number of rounds in the whole run.
      done: number of finished rounds, from `resume_rounds`.

    Returns:
      The policy after the last round.

    Raises:
      RuntimeError: one of `NO_BATCH`, unless an interrupt is requested.
    """
    last_saved = done
    hooks.hold(done)
    while done < rounds and not hooks.interrupt.requested:
        start = time.perf_counter()
        try:
            with hooks.profiled(done + 1):
                policy, row, rollouts = one_round(policy, done)
        except NO_BATCH as error:
            if last_saved != done:  # keep what was learnt
                save_round(hooks, policy, done)
                last_saved = done
            hooks.checkpoints.wait()
            if not hooks.interrupt.requested:
                raise
            say(f"round {done + 1} was left out, as the run stops: {error}")
            break
        done += 1
        if hooks.due(done, rounds) and hooks.evaluate:
            row |= hooks.evaluate(policy.params)
            if hooks.show_samples is not None:
                hooks.show_samples(done, rollouts)
        row["time/step_s"] = time.perf_counter() - start
        hooks.record(done, row)
        score = row.get("heldout/accuracy")
        save = partial(save_round, hooks, policy, done, score)
        hooks.check({"model": policy}, save)
        if hooks.save_due(done, score):
            save()
            last_saved = done
        kept: Contents = partial(dict, step=done, state=policy)
        hooks.hold(done, None if last_saved == done else kept)
        hooks.checkpoints.poll()
    if last_saved != done:
        save_round(hooks, policy, done)
    hooks.checkpoints.wait()
    return policy


def save_round(
    hooks: Hooks, policy: TrainState, done: int, score: float | None = None
) -> None:
    """Saves the policy after `done` rounds, which determines the rounds to come.

    Raises:
      NotFiniteError: it has numbers that are not finite.
    """
    check_finite({"model": policy})
    hooks.checkpoints.save(done, policy, fingerprint=hooks.fingerprint, score=score)


def resume_rounds(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    policy: TrainState,
    step: int | None = None,
) -> tuple[TrainState, int]:
    """The policy of a checkpoint, and the number of finished rounds.

    Args:
      checkpoints: of the rounds; those after the chosen one are moved aside.
      fingerprint: settings that the checkpoint must share.
      policy: any state of the same run, for shapes and shardings.
      step: of the checkpoint, the newest if None.
    """
    found = checkpoints.restore(abstract(policy), fingerprint, step)
    checkpoints.drop_after(found.step)
    state: TrainState = found.state
    return state, found.step
