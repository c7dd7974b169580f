"""The RL stage of a run: one method from the first step to the last."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.models import Transformer, merge_lora, param_axes
from jaxrl_reason.rl.collect import SampleFn
from jaxrl_reason.rl.heldout import samples_for_people
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rl_learner import (
    RLState,
    build_rl_learner,
    init_rl_state,
)
from jaxrl_reason.rl.rl_loop import resume_rl, train_rl
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.task_metrics import task_metrics, under
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import MetricsLog, Row, truncate_after
from jaxrl_reason.runs.samples import write_samples
from jaxrl_reason.sampler import (
    OwnDevicesSampler,
    SamplingSettings,
    make_batch_sampler,
    make_sampler,
)
from jaxrl_reason.serving import Endpoint, FolderTransport, OpenAIEngine
from jaxrl_reason.sharding import BatchSharding, check_batch
from jaxrl_reason.sharding.processes import count, is_main
from jaxrl_reason.train.devices import build_sampler_mesh
from jaxrl_reason.train.examples import demonstrations
from jaxrl_reason.train.guards import run_warnings, update_guard
from jaxrl_reason.train.methods import add_format_reward, build_method
from jaxrl_reason.train.model_reward import ModelReward
from jaxrl_reason.train.own_reward import with_own_reward
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult


class Reinforcement:
    """The RL stage: its functions are built, but nothing is compiled yet."""

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        settings = setup.settings
        self.scorer = None if settings.reward_model is None else ModelReward(setup)
        rl = dataclasses.replace(settings.rl, seed=settings.seed + settings.rl.seed)
        self.learner = build_rl_learner(
            setup.model,
            setup.task,
            run_method(setup, rl.max_new_tokens, self.scorer),
            rl,
            settings.rl_schedule(),
            setup.batch_sharding,
            critic_optimizer=settings.critic_schedule(),
            reward_optimizer=settings.critic_schedule(),
            sample=rollout_sampler(setup),
            lora=settings.model.lora,
            teachers=() if setup.teacher is None else (setup.teacher.load(),),
            place=None if settings.sampler.is_elsewhere else setup.place,
        )

    def begin(self, policy: TrainState) -> RLState:
        """The state at step 0, with a copy of the policy."""
        if self.scorer is not None:
            self.scorer.load(policy)
        return init_rl_state(self.learner, policy)

    def problems(self) -> ProblemStream:
        """The stream of the run's questions, at its beginning."""
        return ProblemStream(
            list(self.setup.problems.train),
            batch_size=self.learner.settings.prompts_per_step,
            seed=self.learner.settings.seed,
        )

    def run(self, state: RLState, session: Session) -> StageResult:
        """RL steps up to `rl.steps`."""
        setup, learner, settings = self.setup, self.learner, self.setup.settings
        fingerprint = setup.fingerprint()
        problems = self.problems()
        checkpoints = session.checkpoints("rl")
        if checkpoints.steps() or settings.resume_step is not None:
            state = resume_rl(
                checkpoints, fingerprint, state, problems, settings.resume_step
            )
        first = state.step
        truncate_after(session.run.metrics_path, first)
        session.progress.stage(learner.method.name, learner.settings.steps, first)
        with session.log() as log:
            hooks = run_hooks(setup, session, log, checkpoints, fingerprint)
            state = train_rl(learner, state, problems, hooks)
        return StageResult(self.plain_params(state), state.step, first)

    def plain_params(self, state: RLState) -> Any:
        """The trained model's parameters, with factors added to their matrices."""
        lora = self.setup.settings.model.lora
        if lora is None or state.base is None:
            return state.policy.params
        return merge_lora(state.base, state.policy.params, lora)


def run_method(
    setup: RunSetup, max_new_tokens: int, scorer: ModelReward | None
) -> Method:
    """The run's method, with the reward of a function or a model if there is one."""
    settings = setup.settings
    rewards = setup.own_reward or scorer
    method = build_method(
        settings.method,
        max_new_tokens=max_new_tokens,
        dapo_settings=settings.dapo,
        demonstrations=demonstrations(settings, setup.task, setup.problems),
    )
    if rewards is not None:
        soft = settings.method == "dapo" and settings.dapo.soft_overlong
        method = with_own_reward(
            method,
            rewards,
            max_new_tokens=max_new_tokens,
            overlong_cache=settings.dapo.overlong_cache if soft else 0,
        )
    return add_format_reward(method, settings.format_reward)


def rollout_sampler(setup: RunSetup) -> SampleFn | None:
    """What draws the rollouts; None for the library's plain sampler."""
    settings, sampler = setup.settings, setup.settings.sampler
    sampling = SamplingSettings(
        max_new_tokens=settings.rl.partial_tokens or settings.rl.max_new_tokens,
        eos_token_ids=setup.task.eos_token_ids,
        temperature=settings.rl.temperature,
    )
    group_size = settings.rl.group_size
    if settings.rl.old_logprobs == "strict":
        if sampler.endpoint is not None or sampler.mesh:
            raise ValueError(
                "rl.old_logprobs strict draws on the device that trains, got "
                f"sampler.endpoint {sampler.endpoint} and sampler.mesh {sampler.mesh!r}"
            )
        return None  # the learner builds it
    if sampler.endpoint is not None:
        if count() > 1:
            raise ValueError(
                f"a serving engine is for a run of one process, got {count()} processes"
            )
        endpoint = Endpoint(sampler.endpoint)
        return OpenAIEngine(
            setup.model,
            sampling,
            group_size,
            endpoint=endpoint,
            served_model=sampler.served_model,
            transport=FolderTransport(endpoint, sampler.weights_folder),
            logprobs=sampler.logprobs,
            version_path=sampler.version_path or None,
        )
    if not sampler.mesh:
        if setup.batch is None:
            return None
        model = setup.model if setup.place is None else setup.place.model
        return make_batch_sampler(model, sampling, group_size, setup.batch)
    mesh = build_sampler_mesh(sampler.mesh, setup.batch_sharding.mesh)
    own = BatchSharding(mesh, setup.batch_sharding.rules)
    check_batch(mesh, own.rules, settings.rl.prompts_per_step, "rl.prompts_per_step")
    model = Transformer(setup.model.config, constrain=own.rules.constrainer(mesh))
    sample: SampleFn = make_sampler(model, sampling, group_size)
    if setup.batch is not None:
        sample = make_batch_sampler(model, sampling, group_size, setup.batch)
    return OwnDevicesSampler(sample, param_axes(model), own)


def row_annotation(setup: RunSetup) -> Callable[[int, Rollouts], Row]:
    """What the run adds to a row: its task's metrics, the means of its rewards."""
    own, ungradable = setup.own_reward, len(setup.problems.ungradable)
    by_id = {p.problem_id: p for p in setup.problems.train}

    def annotate(step: int, fresh: Rollouts) -> Row:
        row: Row = {"task/ungradable": ungradable} if ungradable else {}
        row |= under("task", task_metrics(setup.task, by_id, fresh))
        return row if own is None else row | own.take_means()

    return annotate


def run_hooks(
    setup: RunSetup,
    session: Session,
    log: MetricsLog,
    checkpoints: CheckpointFolder,
    fingerprint: dict[str, Any],
) -> Hooks:
    """The hooks of a stage with rollouts: rows, checkpoints, evaluations, samples."""
    by_id = {p.problem_id: p for p in setup.problems.train}

    def show(step: int, rollouts: Rollouts) -> None:
        if not is_main():
            return
        rows = samples_for_people(setup.task, rollouts, by_id, 8)
        write_samples(session.run.path, step, rows, "train")

    return Hooks(
        log=log,
        checkpoints=checkpoints,
        fingerprint=fingerprint,
        progress=session.progress,
        interrupt=session.interrupt,
        save_every=setup.settings.save_every,
        save_minutes=setup.settings.checkpoints.every_minutes,
        evaluate=setup.heldout.row,
        evaluate_every=setup.settings.eval.every,
        show_samples=show,
        annotate=row_annotation(setup),
        profile=session.profile(setup.settings.profile),
        guard=update_guard(setup.settings, session),
        warnings=run_warnings(setup.settings, session),
    )
