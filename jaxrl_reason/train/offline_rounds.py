"""Offline rounds: sample, select training data, train; or pairs from a file."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxrl_reason.learner.sft import SFTLearner, build_sft_learner
from jaxrl_reason.learner.state import TrainState, init_state
from jaxrl_reason.offline.iterative import iterative_dpo_round
from jaxrl_reason.offline.offline_recipes import OFFLINE
from jaxrl_reason.offline.pair_learner import PairLearner
from jaxrl_reason.offline.preference_methods import PreferenceMethod
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    train_on_pairs,
)
from jaxrl_reason.offline.round_loop import OneRound, resume_rounds, train_rounds
from jaxrl_reason.offline.sample_rounds import (
    RoundSampler,
    RoundSettings,
    build_round_sampler,
)
from jaxrl_reason.runs.metrics_log import truncate_after
from jaxrl_reason.train.guards import update_guard
from jaxrl_reason.train.offline_pairs import load_pairs, pair_sizes
from jaxrl_reason.train.reinforcement import run_hooks
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult
from jaxrl_reason.train.tasks import hinted_prompt


class Rounds:
    """RFT, STaR, iterative DPO and its variants, or training on pairs from a file."""

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        settings, offline = setup.settings, setup.settings.offline
        self.recipe = OFFLINE[settings.method]
        self.sampler = round_sampler(setup)
        self.learner = self.build_learner()
        self.pairs = None if offline.pairs is None else load_pairs(setup, offline.pairs)

    def begin(self, policy: TrainState) -> TrainState:
        """A copy of the policy with the optimiser of a round."""
        optimizer = self.setup.settings.optimizer.build()
        return init_state(policy.params, optimizer, copy=True)

    def run(self, state: TrainState, session: Session) -> StageResult:
        """Rounds up to `offline.rounds`."""
        setup, settings, run = self.setup, self.setup.settings, session.run
        fingerprint = setup.fingerprint()
        checkpoints = session.checkpoints("rounds")
        base, done = state, 0
        if checkpoints.steps() or settings.resume_step is not None:
            state, done = resume_rounds(
                checkpoints, fingerprint, state, settings.resume_step
            )
        first = done
        truncate_after(run.metrics_path, done)
        rounds = settings.offline.rounds
        session.progress.stage(settings.method, rounds, done)
        with session.log() as log:
            hooks = run_hooks(setup, session, log, checkpoints, fingerprint)
            # A round takes as long as many steps, so each is evaluated and saved.
            guard = update_guard(settings, session)
            hooks = dataclasses.replace(
                hooks, evaluate_every=1, save_every=1, guard=guard
            )
            if self.pairs is not None:
                hooks = dataclasses.replace(hooks, show_samples=None)
            # At once: there is nothing to save in the middle of a round.
            self.learner = dataclasses.replace(
                self.learner, update=guard.watch(self.learner.update, "model")
            )
            one_round = self.one_round(base)
            state = train_rounds(one_round, state, hooks, rounds=rounds, done=done)
        done = checkpoints.steps()[-1]
        return StageResult(state.params, done, first)

    def one_round(self, base: TrainState) -> OneRound:
        """(policy, index) -> the trained policy, its row and its rollouts."""
        settings = self.setup.settings
        optimizer, offline, learner = settings.optimizer, settings.offline, self.learner
        if not isinstance(learner, SFTLearner):
            if self.pairs is not None:
                pairs = self.pairs

                def from_file(policy: TrainState, index: int) -> Any:
                    state = init_state(policy.params, optimizer.build(), copy=True)
                    # The reference is the initial model of the run.
                    return *train_on_pairs(learner, state, pairs, base.params), None

                return from_file
            return lambda policy, index: iterative_dpo_round(
                self.sampler,
                learner,
                policy,
                self.problems(index),
                round_index=index,
                max_pairs=offline.max_pairs,
            )
        learn = partial(
            self.recipe.run,
            self.sampler,
            learner,
            optimizer,
            epochs=offline.epochs,
        )
        if settings.method == "star":
            hint = None
            if offline.hint is not None:
                hint = partial(hinted_prompt, self.setup.task, hint=offline.hint)
            return lambda policy, index: learn(
                policy, base, self.problems(index), round_index=index, hint=hint
            )
        return lambda policy, index: learn(
            policy,
            self.problems(index),
            round_index=index,
            max_per_prompt=offline.max_per_prompt,
        )

    def build_learner(self) -> SFTLearner | PairLearner[PreferenceMethod]:
        """The learner for a round's responses, or for pairs of them."""
        setup, settings = self.setup, self.setup.settings
        if self.recipe.method is not None:
            return build_preference_learner(
                setup.model,
                self.recipe.method,
                pair_sizes(setup, epochs=settings.offline.epochs),
                settings.optimizer,
                setup.batch_sharding,
            )
        # The number of updates follows from the epochs and the data. The data are
        # sampled responses, which may be longer than those of fine-tuning.
        rl, sft = settings.rl, settings.sft
        longest = max(sft.max_response, rl.max_new_tokens)
        sizes = dataclasses.replace(
            sft,
            updates=1,
            max_response=longest,
            row_width=max(sft.row_width, rl.prompt_width + longest),
        )
        return build_sft_learner(
            setup.model, sizes, settings.optimizer, setup.batch_sharding
        )

    def problems(self, index: int) -> Sequence[Any]:
        """The number of questions of a round, in whole calls of the sampler."""
        return round_problems(self.setup, index)


def round_sampler(setup: RunSetup) -> RoundSampler:
    """The sampler of a round, with the sizes of the rl group."""
    rl = setup.settings.rl
    return build_round_sampler(
        setup.model,
        setup.task,
        RoundSettings(
            prompts_per_call=rl.prompts_per_step,
            group_size=rl.group_size,
            prompt_width=rl.prompt_width,
            max_new_tokens=rl.max_new_tokens,
            temperature=rl.temperature,
            seed=setup.settings.seed + rl.seed,
        ),
        setup.batch_sharding,
    )


def round_problems(setup: RunSetup, index: int) -> list[Any]:
    """Questions of round `index`, drawn anew, in whole calls of the sampler.

    Raises:
      ValueError: there are fewer than one call needs.
    """
    settings, train = setup.settings, setup.problems.train
    call = settings.rl.prompts_per_step
    count = min(settings.offline.problems or len(train), len(train)) // call * call
    if not count:
        raise ValueError(
            f"a round needs at least prompts_per_step questions ({call}), got "
            f"{min(settings.offline.problems or len(train), len(train))}"
        )
    order = np.random.default_rng((settings.seed, index)).permutation(len(train))
    return [train[int(i)] for i in order[:count]]
