"""The prover-verifier game as a stage of a run."""

import dataclasses

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.game.game_checkpoints import resume_game, save_game
from jaxrl_reason.game.game_metrics import no_longer_convinces
from jaxrl_reason.game.game_settings import GameSettings
from jaxrl_reason.game.prover_verifier_game import Game, game_round, start_game
from jaxrl_reason.game.roles import RoleStream, RoleTask
from jaxrl_reason.learner.state import TrainState, init_value_state
from jaxrl_reason.models import ValueModel
from jaxrl_reason.reward_models.reward_methods import verifier
from jaxrl_reason.reward_models.reward_model import build_reward_model_learner
from jaxrl_reason.rl.collect import NO_BATCH
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rl_learner import RLState, build_rl_learner, init_rl_state
from jaxrl_reason.runs.hooks import hold_step
from jaxrl_reason.runs.metrics_log import PhaseTimer, truncate_after
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.update_guard import UpdateGuard, check_finite
from jaxrl_reason.train.guards import run_warnings, update_guard
from jaxrl_reason.train.offline_pairs import pair_sizes
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult


class ProverVerifierGame:
    """A prover in two roles, trained by GRPO, and a verifier that scores it.

    The rows are those of the prover's RL steps; the last one of a round has the round's
    results. A round is always finished and saved; a stopped game continues from there.
    """

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        settings, flags = setup.settings, setup.settings.game
        encode = setup.task.tokenizer.encode
        task = RoleTask(
            setup.task, tuple(encode(flags.helpful)), tuple(encode(flags.sneaky))
        )
        rl = dataclasses.replace(settings.rl, seed=settings.seed + settings.rl.seed)
        self.prover = build_rl_learner(
            setup.model,
            task,
            grpo(kl_coef=0),
            rl,
            settings.rl_schedule(),
            setup.batch_sharding,
        )
        self.verifier = build_reward_model_learner(
            ValueModel(setup.model.config, setup.model.constrain),
            verifier(),
            pair_sizes(setup, epochs=settings.offline.epochs),
            settings.optimizer,
            setup.batch_sharding,
        )
        self.rules = GameSettings(
            rounds=flags.rounds,
            steps_per_round=rl.steps,
            max_pairs=settings.offline.max_pairs,
            kind=flags.kind,
            seed=settings.seed,
        )

    def begin(self, policy: TrainState) -> tuple[RLState, TrainState]:
        """The prover's state, and the initial verifier of every round."""
        optimizer, places = self.setup.settings.optimizer, self.setup.batch_sharding
        base = init_value_state(policy, optimizer, places)
        return init_rl_state(self.prover, policy), base

    def watched_game(self, base: TrainState, guard: UpdateGuard) -> Game:
        """The game, in which the updates of both models are watched."""
        prover = dataclasses.replace(
            self.prover, update=guard.watch(self.prover.update, "prover")
        )
        verifier = dataclasses.replace(
            self.verifier, update=guard.watch(self.verifier.update, "verifier")
        )
        problems = self.setup.problems.train[: self.setup.settings.game.problems]
        return Game(prover, verifier, base, list(problems), self.rules)

    def run(self, state: tuple[RLState, TrainState], session: Session) -> StageResult:
        """Plays rounds to the last, or until sneaky solutions no longer convince."""
        setup, settings, run = self.setup, self.setup.settings, session.run
        prover, base = state
        guard = update_guard(settings, session)
        game = self.watched_game(base, guard)
        problems = RoleStream(
            ProblemStream(
                list(setup.problems.train),
                batch_size=settings.rl.prompts_per_step // 2,
                seed=self.prover.settings.seed,
            )
        )
        fingerprint = setup.fingerprint()
        checkpoints = session.checkpoints("game")
        played, over = None, False
        if checkpoints.steps() or settings.resume_step is not None:
            played, over = resume_game(
                checkpoints, fingerprint, game, prover, problems, settings.resume_step
            )
        first = 0 if played is None else played.prover.step
        truncate_after(run.metrics_path, first)
        warnings = run_warnings(settings, session)
        rounds = self.rules.rounds
        done = 0 if played is None else played.round_index
        session.progress.stage(settings.method, rounds, done)
        hold_step(session.interrupt, checkpoints, fingerprint, first)  # all are saved
        if played is None:
            played = start_game(game, prover)
        timer = PhaseTimer()
        with session.log() as log:
            while played.round_index < rounds and not over:
                if session.interrupt.requested:
                    break
                step = played.prover.step
                try:
                    played, row, steps = game_round(game, played, problems, timer)
                except NO_BATCH as error:
                    if not session.interrupt.requested:
                        raise
                    number = played.round_index + 1
                    say(f"round {number} was left out, as the run stops: {error}")
                    break
                params = played.prover.policy.params
                models = {"prover": played.prover.policy, "verifier": played.verifier}
                guard.check(models)
                check_finite(models)
                row |= setup.heldout.row(params)
                steps[-1] |= row | timer.take()
                for number, found in enumerate(steps, step + 1):
                    log.write(number, found | warnings.look(number, found))
                session.progress.update(played.round_index, steps[-1])
                over = no_longer_convinces(row, self.rules)
                save_game(
                    checkpoints,
                    played,
                    problems,
                    over=over,
                    fingerprint=fingerprint,
                    score=row["heldout/accuracy"],
                )
                checkpoints.poll()
                warnings.stop_if_asked()
        return StageResult(played.prover.policy.params, played.prover.step, first)
