"""RL in the stages of a published system, at the run's own sizes."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.data.pass_rates import kept_ids, with_ids
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.pass_rate_filter import measure_pass_rates
from jaxrl_reason.rl.recipes.staged_recipes import STAGED, scaled_stages
from jaxrl_reason.rl.stage_parts import StagedRun, build_stages
from jaxrl_reason.rl.stages import resume_stages, train_stages
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.metrics_log import truncate_after
from jaxrl_reason.sharding.agreement import on_main
from jaxrl_reason.train.methods import add_format_reward
from jaxrl_reason.train.model_reward import ModelReward
from jaxrl_reason.train.own_reward import with_own_reward
from jaxrl_reason.train.reinforcement import run_hooks
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult

KEPT = "kept_problems.json"  # ids kept by the data filter, in the run's folder


class StagedReinforcement:
    """Runs the stages in sequence; rollouts come from the plain sampler."""

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        model = setup.settings.reward_model
        self.scorer = None if model is None else ModelReward(setup)
        self.recipe = STAGED[setup.settings.method]
        self.stages = self.build(setup.problems.train)

    def build(self, problems: Sequence[Any]) -> StagedRun:
        """The compiled functions of all stages for these problems."""
        setup, settings = self.setup, self.setup.settings
        rl = dataclasses.replace(settings.rl, seed=settings.seed + settings.rl.seed)
        stages = scaled_stages(
            self.recipe,
            rl,
            settings.rl_schedule(),
            [list(problems)] * len(self.recipe.stages),
            limits=settings.stages.limits,
            critic_optimizer=settings.critic_schedule(),
        )
        rewards = setup.own_reward or self.scorer
        given = []
        for stage in stages:
            method = stage.method
            if rewards is not None:
                limit = stage.settings.max_new_tokens
                method = with_own_reward(method, rewards, max_new_tokens=limit)
            method = add_format_reward(method, settings.format_reward)
            given.append(dataclasses.replace(stage, method=method))
        stages = tuple(given)
        return build_stages(
            setup.model, setup.task, stages, setup.batch_sharding, setup.place
        )

    def begin(self, policy: TrainState) -> TrainState:
        """The policy, which every stage may need as the reference."""
        if self.scorer is not None:
            self.scorer.load(policy)
        return policy

    def run(self, state: TrainState, session: Session) -> StageResult:
        """Runs all stages, from the first or from where the folder's run stopped."""
        setup, run = self.setup, session.run
        if setup.settings.stages.data_filter:
            self.choose_problems(state, session.run.path)
            self.stages = self.build(self.filtered(session.run.path))
        fingerprint = setup.fingerprint()
        checkpoints = session.checkpoints("rl")
        now = None
        if checkpoints.steps() or setup.settings.resume_step is not None:
            now = resume_stages(
                self.stages,
                checkpoints,
                fingerprint,
                state,
                setup.settings.resume_step,
                mend=setup.settings.resume == "auto",
            )
        first = 0 if now is None else now.state.step
        truncate_after(run.metrics_path, first)
        with session.log() as log:
            hooks = run_hooks(setup, session, log, checkpoints, fingerprint)
            last = train_stages(self.stages, state, hooks, now)
        return StageResult(last.policy.params, last.step, first)

    def choose_problems(self, policy: TrainState, folder: Path) -> None:
        """Writes which problems the recipe's filter keeps, once per run."""
        problems, path = self.setup.problems.train, folder / KEPT
        if not on_main("data filter", path.is_file):
            rule = self.recipe.data_filter
            assert rule is not None  # checked in __init__
            rates = measure_pass_rates(
                self.stages.learner[0], policy.params, list(problems)
            )
            atomic_write(path, json.dumps(kept_ids(rates, rule)) + "\n")

    def filtered(self, folder: Path) -> list[Any]:
        """The problems that the filter of a folder's run has kept."""
        path = folder / KEPT
        kept = on_main("data filter", lambda: json.loads(path.read_text("utf-8")))
        return with_ids(list(self.setup.problems.train), kept)
