"""The prover-verifier game: a prover in two roles, a verifier that scores it, in turns.

A round trains the verifier from its base on solutions of all provers so far, then
the prover against that verifier, and ends with new solutions. arXiv 2407.13692.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.game.game_metrics import game_metrics, no_longer_convinces
from jaxrl_reason.game.game_settings import GameSettings
from jaxrl_reason.game.roles import (
    RoleTask,
    is_helpful,
    with_roles,
    without_roles,
)
from jaxrl_reason.game.solution_pool import verifier_comparisons
from jaxrl_reason.learner.state import TrainState, init_state
from jaxrl_reason.losses import prover_rewards
from jaxrl_reason.offline.iterative import round_seed
from jaxrl_reason.offline.pair_learner import PairLearner
from jaxrl_reason.reward_models.reward_methods import RankingMethod
from jaxrl_reason.reward_models.reward_model import (
    reward_model_scores,
    train_on_comparisons,
)
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.iteration import draw_groups, model_params, rl_iteration
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rollouts import Rollouts, concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row

# rollouts without roles -> scores [P, G]
ScoreRollouts = Callable[[Rollouts], np.ndarray]


@dataclass(frozen=True)
class Game:
    """The learners, the problems and the settings of a game.

    Attributes:
      prover: RL learner over a `RoleTask`, with any method; its `rewards` are not used.
      verifier: learner of a reward model, usually with the method `verifier`.
      base: the verifier that every round starts from; not changed.
      problems: the verifier is trained on solutions to these; twice their number must
        be a multiple of the prover's `prompts_per_step`.
      settings: of the game.
    """

    prover: RLLearner
    verifier: PairLearner[RankingMethod]
    base: TrainState
    problems: Sequence[Any]
    settings: GameSettings

    def __post_init__(self) -> None:
        if not isinstance(self.prover.task, RoleTask):
            raise ValueError(
                f"the prover's task must be a RoleTask, got {self.prover.task!r}"
            )
        p = self.prover.settings.prompts_per_step
        if not self.problems or 2 * len(self.problems) % p:
            raise ValueError(
                f"twice the problems must be a multiple of prompts_per_step ({p}), "
                f"got {len(self.problems)} problems"
            )


@dataclass(frozen=True)
class GameState:
    """The state of a game between rounds.

    Attributes:
      prover: state of the one policy for both roles.
      pool: solutions on the host, without roles: of the base prover, then of each
        round's helpful and sneaky prover, all to the same problems.
      verifier: of the last round, None before the first.
      round_index: rounds played.
    """

    prover: RLState
    pool: tuple[Rollouts, ...]
    verifier: TrainState | None = None
    round_index: int = 0


def start_game(game: Game, prover: RLState) -> GameState:
    """Samples the base prover's solutions.

    The base has not learnt the roles; only its solutions in the helpful role are used.
    """
    prover, helpful, _ = sample_solutions(game, prover, PhaseTimer())
    return GameState(prover, (helpful,))


def play_game(
    game: Game, state: GameState, problems: Iterator[Sequence[Any]], timer: PhaseTimer
) -> tuple[GameState, list[Row]]:
    """Plays rounds until the last one or until sneaky solutions no longer convince.

    Args:
      game: to play.
      state: of `start_game`, or after some rounds.
      problems: batches of `prompts_per_step` problems in roles: a `RoleStream`.
      timer: records the seconds of each phase.

    Returns:
      The state and one row per round.
    """
    rows: list[Row] = []
    while state.round_index < game.settings.rounds:
        state, row, _ = game_round(game, state, problems, timer)
        rows.append(row)
        if no_longer_convinces(row, game.settings):
            break
    return state, rows


def game_round(
    game: Game, state: GameState, problems: Iterator[Sequence[Any]], timer: PhaseTimer
) -> tuple[GameState, Row, list[Row]]:
    """One round: train the verifier, train the prover against it, sample solutions.

    Args:
      game: to play.
      state: its prover is donated.
      problems: as in `play_game`.
      timer: records the seconds of each phase.

    Returns:
      The state, the round's row (the verifier's training in the group `verifier`, and
      `game_metrics`), and one row per RL step.

    Raises:
      NoSignalError: no problem has both a right and a wrong solution.
    """
    # Train the verifier from its base, on the solutions of all provers so far.
    with timer("verifier"):
        verifier, found = train_verifier(game, state)
    row = {
        name.replace("reward_model/", "verifier/"): value
        for name, value in found.items()
    }

    # Train the prover in both roles against that verifier.
    def score(rollouts: Rollouts) -> np.ndarray:
        return reward_model_scores(game.verifier, verifier.params, rollouts)

    learner = against(game.prover, score, game.settings)
    prover, steps = state.prover, []
    for _ in range(game.settings.steps_per_round):
        prover, step, _ = rl_iteration(learner, prover, problems, timer)
        steps.append(step)

    # Its new solutions: the metrics of this round, and data for the next verifier.
    prover, helpful, sneaky = sample_solutions(game, prover, timer)
    row |= game_metrics(helpful, sneaky, score(helpful), score(sneaky))
    state = GameState(
        prover=prover,
        pool=(*state.pool, helpful, sneaky),
        verifier=verifier,
        round_index=state.round_index + 1,
    )
    return state, row, steps


def train_verifier(game: Game, state: GameState) -> tuple[TrainState, Row]:
    """Trains a verifier from the base on the current pool."""
    seed = round_seed(game.settings.seed, state.round_index)
    comparisons = verifier_comparisons(
        state.pool, max_pairs=game.settings.max_pairs, seed=seed
    )
    if not comparisons:
        raise NoSignalError(
            "the pool must hold a right and a wrong solution to some problem, got none "
            f"in {len(state.pool)} times {len(state.pool[0].problem_ids)} groups"
        )
    fresh = init_state(game.base.params, game.verifier.optimizer.build(), copy=True)
    return train_on_comparisons(game.verifier, fresh, comparisons, seed=seed)


def against(
    prover: RLLearner, score: ScoreRollouts, settings: GameSettings
) -> RLLearner:
    """The prover's learner with rewards from a verifier; nothing is recompiled.

    The verifier gets prompts without the role. Scores are centred by the mean over all
    that one call of `rewards` gets: both roles of all its problems.
    """
    task = prover.task
    assert isinstance(task, RoleTask)  # checked by Game

    def rewards(rollouts: Rollouts) -> np.ndarray:
        shape = rollouts.correct.shape
        found = prover_rewards(
            jnp.asarray(score(without_roles(rollouts, task)).reshape(-1)),
            rollouts.correct.reshape(-1),
            np.repeat(is_helpful(rollouts), shape[1]),
            kind=settings.kind,
            penalty=settings.penalty,
            valid=~rollouts.failed.reshape(-1),
        )
        return np.asarray(found).reshape(shape)

    return replace(prover, method=replace(prover.method, rewards=rewards))


def sample_solutions(
    game: Game, prover: RLState, timer: PhaseTimer
) -> tuple[RLState, Rollouts, Rollouts]:
    """Samples solutions to the game's problems in the helpful and in the sneaky role.

    Returns:
      The state, in which the draw is counted, and the groups of both roles, without
      roles.
    """
    asked = with_roles(game.problems)
    p = game.prover.settings.prompts_per_step
    params = model_params(game.prover, prover)
    learner = [
        draw_groups(game.prover, prover, params, timer, asked[i : i + p], prover.draws)
        for i in range(0, len(asked), p)
    ]
    both = concatenate(learner)
    task = game.prover.task
    assert isinstance(task, RoleTask)  # checked by Game
    plain, helpful = without_roles(both, task), is_helpful(both)
    return (
        replace(prover, draws=prover.draws + 1),
        plain.select(np.flatnonzero(helpful)),
        plain.select(np.flatnonzero(~helpful)),
    )
