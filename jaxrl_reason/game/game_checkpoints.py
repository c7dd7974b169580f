"""Checkpoints of a game after each round; a resumed game continues unchanged."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxrl_reason.game.prover_verifier_game import Game, GameState
from jaxrl_reason.learner.state import abstract
from jaxrl_reason.rl.problem_batches import ProblemBatches
from jaxrl_reason.rl.rl_learner import RLState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.checkpoints import CheckpointFolder, Restored

# Prefix of arrays of the prover's surplus; a number before / is an index in the pool.
_SURPLUS = "surplus"


class SavedGame(NamedTuple):
    """The contents of a game's checkpoint.

    Attributes:
      state: of the game.
      over: whether sneaky solutions no longer convinced.
    """

    state: GameState
    over: bool


def save_game(
    checkpoints: CheckpointFolder,
    state: GameState,
    problems: ProblemBatches,
    *,
    over: bool,
    fingerprint: Mapping[str, Any],
    score: float | None = None,
) -> None:
    """Saves all that the next round depends on, including the pool of solutions.

    Args:
      checkpoints: of the game; a checkpoint's number is that of the prover's steps.
      state: after at least one round.
      problems: the stream of the prover's problems.
      over: whether the game has ended before its last round.
      fingerprint: settings that a resumed game must share.
      score: of this round, by which the best are kept.
    """
    prover = state.prover
    parts = {str(i): rollouts for i, rollouts in enumerate(state.pool)}
    if prover.surplus is not None:
        parts[_SURPLUS] = prover.surplus
    checkpoints.save(
        prover.step,
        {"policy": prover.policy, "verifier": state.verifier, **prover.models},
        extra={
            "draws": prover.draws,
            "controls": dict(prover.controls),
            "problems": problems.get_state(),
            "round_index": state.round_index,
            "over": over,
        },
        fingerprint=fingerprint,
        score=score,
        arrays={
            f"{part}/{name}": array
            for part, rollouts in parts.items()
            for name, array in rollouts.arrays().items()
        },
    )


def resume_game(
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    game: Game,
    prover: RLState,
    problems: ProblemBatches,
    step: int | None = None,
) -> SavedGame:
    """Continues from a checkpoint: the same solutions, verifiers and updates.

    Args:
      checkpoints: of the game; those after the chosen one are moved aside.
      fingerprint: settings that the checkpoint must share.
      game: of the run; its base gives the verifier's shapes.
      prover: an initial state of the same run, for shapes and shardings.
      problems: moved to the position in the checkpoint.
      step: of the checkpoint, the newest if None.
    """
    models = {"policy": prover.policy, "verifier": game.base, **prover.models}
    found = checkpoints.restore(abstract(models), fingerprint, step)
    checkpoints.drop_after(found.step)
    with found.in_form():
        return _as_saved(found, prover, problems)


def _as_saved(found: Restored, prover: RLState, problems: ProblemBatches) -> SavedGame:
    problems.set_state(found.extra["problems"])
    parts: dict[str, dict[str, Any]] = {}
    for place, array in found.arrays.items():
        part, _, name = place.partition("/")
        parts.setdefault(part, {})[name] = array
    surplus = parts.pop(_SURPLUS, None)
    state = GameState(
        prover=RLState(
            policy=found.state["policy"],
            models={name: found.state[name] for name in prover.models},
            reference=prover.reference,
            surplus=None if surplus is None else Rollouts.from_arrays(surplus),
            step=found.step,
            draws=found.extra["draws"],
            controls=found.extra["controls"],
            base=prover.base,
        ),
        pool=tuple(Rollouts.from_arrays(parts[str(i)]) for i in range(len(parts))),
        verifier=found.state["verifier"],
        round_index=found.extra["round_index"],
    )
    return SavedGame(state, found.extra["over"])
