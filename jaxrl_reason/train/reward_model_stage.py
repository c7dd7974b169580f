"""Training of a reward model on pairs from the policy or from a file."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl_reason.data.preference_pairs import build_pairs
from jaxrl_reason.learner.state import TrainState, abstract, init_value_state
from jaxrl_reason.models import ValueModel
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.offline.sample_rounds import as_pairs, round_metrics, sample_round
from jaxrl_reason.reward_models.reward_batch import Comparison, as_comparisons
from jaxrl_reason.reward_models.reward_methods import RankingMethod
from jaxrl_reason.reward_models.reward_model import (
    build_reward_model_learner,
    reward_model_scores,
    train_on_comparisons,
)
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.hooks import hold_step
from jaxrl_reason.runs.metrics_log import Row, truncate_after
from jaxrl_reason.runs.update_guard import check_finite
from jaxrl_reason.train.guards import run_warnings, update_guard
from jaxrl_reason.train.methods import REWARD_MODELS
from jaxrl_reason.train.offline_pairs import load_pairs, pair_sizes
from jaxrl_reason.train.offline_rounds import round_problems, round_sampler
from jaxrl_reason.train.offline_steps import load_steps
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult


class RewardModel:
    """Trains a scalar head on the policy's transformer to rank responses.

    A row is an epoch. Responses to the held-out questions tell how often the model
    ranks a right one above a wrong one.
    """

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        settings = setup.settings
        method = REWARD_MODELS[settings.method]()
        self.given = self.comparisons_of_a_file(method)
        sizes = pair_sizes(setup, epochs=1, candidates=sum(method.candidates))
        self.learner = build_reward_model_learner(
            ValueModel(setup.model.config, setup.model.constrain),
            method,
            with_room_for(self.given or (), sizes, sum(method.candidates)),
            settings.optimizer,
            setup.batch_sharding,
        )
        self.sampler = round_sampler(setup)

    def comparisons_of_a_file(self, method: RankingMethod) -> list[Comparison] | None:
        """Pairs or steps of a file; None if responses are sampled."""
        offline = self.setup.settings.offline
        if offline.pairs is not None:
            return as_comparisons(load_pairs(self.setup, offline.pairs))
        if offline.steps is not None:
            return load_steps(self.setup, offline.steps, method.candidates)
        return None

    def begin(self, policy: TrainState) -> tuple[Any, TrainState]:
        """The policy's parameters, which sample the responses, and the reward model."""
        optimizer, places = self.setup.settings.optimizer, self.setup.batch_sharding
        return policy.params, init_value_state(policy, optimizer, places)

    def run(self, state: tuple[Any, TrainState], session: Session) -> StageResult:
        """Epochs up to `offline.epochs`, each saved."""
        setup, settings, run = self.setup, self.setup.settings, session.run
        policy, scorer = state
        fingerprint = setup.fingerprint()
        checkpoints = session.checkpoints("reward_model")
        done = 0
        if checkpoints.steps() or settings.resume_step is not None:
            found = checkpoints.restore(
                abstract(scorer), fingerprint, settings.resume_step
            )
            checkpoints.drop_after(found.step)
            scorer, done = found.state, found.step
        first, epochs = done, settings.offline.epochs
        truncate_after(run.metrics_path, done)
        guard = update_guard(settings, session)
        learner = dataclasses.replace(
            self.learner, update=guard.watch(self.learner.update, "model")
        )
        warnings = run_warnings(settings, session)
        comparisons, sampled = self.comparisons(policy)
        heldout = self.heldout_responses(policy)
        session.progress.stage(settings.method, epochs, done)
        hold_step(session.interrupt, checkpoints, fingerprint, done)  # all are saved
        with session.log() as log:
            while done < epochs and not session.interrupt.requested:
                scorer, row = train_on_comparisons(
                    learner, scorer, comparisons, seed=settings.seed + done
                )
                guard.check({"model": scorer})
                check_finite({"model": scorer})
                done += 1
                row |= sampled
                if heldout is not None:
                    scores = reward_model_scores(self.learner, scorer.params, heldout)
                    row |= ranking_accuracy(scores, heldout)
                row |= warnings.look(done, row)
                log.write(done, row)
                session.progress.update(done, row)
                checkpoints.save(done, scorer, fingerprint=fingerprint)
                checkpoints.poll()
                warnings.stop_if_asked()
        return StageResult(None, done, first)

    def comparisons(self, params: Any) -> tuple[list[Comparison], Row]:
        """The training data, and metrics of the policy from the sampled responses."""
        if self.given is not None:
            return self.given, {}
        setup = self.setup
        rollouts = sample_round(self.sampler, params, round_problems(setup, 0), draw=0)
        places = build_pairs(
            rollouts.correct,
            rollouts.truncated,
            rollouts.lengths,
            max_pairs=setup.settings.offline.max_pairs,
            seed=setup.settings.seed,
            failed=rollouts.failed,
            problem_ids=rollouts.problem_ids,
        )
        if not len(places):
            raise NoSignalError(
                "a question must have a right and a wrong complete response, got none "
                f"of {len(rollouts.problem_ids)}"
            )
        return as_comparisons(as_pairs(rollouts, places)), round_metrics(rollouts)

    def heldout_responses(self, params: Any) -> Rollouts | None:
        """Responses to held-out questions; None if they are too few for one call."""
        call = self.setup.settings.rl.prompts_per_step
        problems = list(self.setup.problems.heldout)
        count = len(problems) // call * call
        if not count:
            return None
        return sample_round(self.sampler, params, problems[:count], draw=1)


def with_room_for(
    comparisons: Sequence[Comparison], sizes: PreferenceSettings, candidates: int
) -> PreferenceSettings:
    """The sizes, enlarged for comparisons that need it: a prefix counts as the prompt.

    Args:
      comparisons: of a file.
      sizes: of the run.
      candidates: responses per comparison.
    """
    prompt = max((len(c.prompt) for c in comparisons), default=0)
    responses = (len(r) for c in comparisons for r in (*c.chosen, *c.rejected))
    prompt = max(prompt, sizes.max_prompt)
    response = max(sizes.max_response, *responses, 0)
    width = max(sizes.row_width, candidates * (prompt + response))
    return dataclasses.replace(
        sizes, max_prompt=prompt, max_response=response, row_width=width
    )


def ranking_accuracy(scores: np.ndarray, rollouts: Rollouts) -> Row:
    """How often a right response scores above a wrong one to the same question.

    Args:
      scores: [P, G].
      rollouts: graded.

    Returns:
      `heldout/ranking_accuracy`, ties half; empty if there is no such pair.
    """
    right = rollouts.correct & ~rollouts.failed
    wrong = ~rollouts.correct & ~rollouts.failed
    pairs = right[:, :, None] & wrong[:, None, :]
    if not pairs.any():
        return {}
    gap = scores[:, :, None] - scores[:, None, :]
    won = (gap > 0) + 0.5 * (gap == 0)
    return {"heldout/ranking_accuracy": float(won[pairs].mean())}
