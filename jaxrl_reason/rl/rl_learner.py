"""The state and the compiled functions of an RL run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from flax import struct

from jaxrl_reason.learner.forward import logprobs_of
from jaxrl_reason.learner.lora_training import (
    LoraAdapter,
    build_lora,
    init_policy_state,
)
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.models import LoraSettings, Transformer
from jaxrl_reason.rl.collect import SampleFn
from jaxrl_reason.rl.components import (
    ComponentLearner,
    FrozenModel,
    LearnerSetup,
    PolicyForward,
)
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.minibatches import MinibatchPlan, build_update
from jaxrl_reason.rl.partial_rollouts import PartialSampler, build_partial_sampler
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.sampler import (
    RolloutEngine,
    SamplingSettings,
    StrictSampler,
    WeightPlacement,
    make_sampler,
)
from jaxrl_reason.sharding import BatchSharding, check_batch
from jaxrl_reason.tasks.task import Task

if TYPE_CHECKING:
    from jaxrl_reason.rl.rollouts_ahead import DrawnBatch

Params = Any
# Component -> settings that must be 0 or False for a method without it.
COMPONENT_SETTINGS = {
    "critic": (
        "critic_updates_per_rollout",
        "value_pretraining_steps",
        "bootstrap_truncated",
    ),
}


@struct.dataclass
class RLState:
    """All state that an RL run keeps from step to step.

    Attributes:
      policy: the trained policy and its optimiser.
      models: the models that components train, by component name.
      reference: frozen parameters, if the method has a reference.
      surplus: groups with signal that did not fit into the last batch.
      step: RL steps done.
      draws: rollouts sampled so far.
      controls: numbers that components keep between steps.
      base: frozen parameters, if the policy consists of low-rank factors.
      unfinished: groups with responses that go on in the next step.
      ahead: batches that were drawn for the next steps, in a checkpoint.
    """

    policy: TrainState
    models: Mapping[str, TrainState]
    reference: Params | None
    surplus: Rollouts | None
    step: int = struct.field(pytree_node=False)
    draws: int = struct.field(pytree_node=False)
    controls: Mapping[str, float] = struct.field(
        pytree_node=False, default_factory=dict
    )
    base: Params | None = None
    unfinished: Rollouts | None = None
    ahead: "tuple[DrawnBatch, ...]" = struct.field(pytree_node=False, default=())


@dataclass(frozen=True)
class RLLearner:
    """The compiled functions of a run, built once by `build_rl_learner`.

    Attributes:
      task: makes prompts and grades responses.
      method: the algorithm.
      settings: of the run.
      plan: shapes of the policy's mini-batches.
      batch_sharding: sharding of batches.
      optimizer: of the policy's updates.
      learning_rate: number of policy updates -> learning rate.
      loss_inputs: names of what the loss gets by keyword.
      sample: the sampler of rollouts.
      score: params, batch -> log-probs [B, T]; jitted.
      advantages: the method's, jitted.
      update: one optimiser step of the policy; jitted.
      components: the method's components, built.
      lora: the adapter, if low-rank factors are trained.
      partial: draws responses in parts, if the settings ask for it.
      place: copies the parameters to where `sample` reads them, if that is elsewhere.
    """

    task: Task
    method: Method
    settings: RLSettings
    plan: MinibatchPlan
    batch_sharding: BatchSharding
    optimizer: OptimizerSettings
    learning_rate: Callable[[Any], Any]
    loss_inputs: tuple[str, ...]
    sample: SampleFn
    score: Callable[..., jax.Array]
    advantages: Callable[[Experience], Advantages]
    update: Callable[..., tuple[TrainState, Any]]
    components: tuple[ComponentLearner, ...] = ()
    lora: LoraAdapter | None = None
    partial: PartialSampler | None = None
    place: WeightPlacement | None = None


def build_rl_learner(
    model: Transformer,
    task: Task,
    method: Method,
    settings: RLSettings,
    optimizer: OptimizerSettings,
    batch_sharding: BatchSharding,
    critic_optimizer: OptimizerSettings | None = None,
    reward_optimizer: OptimizerSettings | None = None,
    sample: SampleFn | None = None,
    lora: LoraSettings | None = None,
    teachers: Sequence[FrozenModel] = (),
    place: WeightPlacement | None = None,
) -> RLLearner:
    """Builds the jitted functions of a run; nothing is compiled yet.

    A critic and an implicit reward model use the policy's optimiser settings unless
    they get their own. `sample` draws the rollouts, with the settings' temperature,
    group size and length limit; by default it is the plain sampler. With `lora`,
    low-rank factors are trained and the policy's own parameters are frozen. `teachers`
    are for a method with a `Teacher`. `place` is for samplers that read the parameters
    elsewhere; `sample` must be of its model.

    Raises:
      ValueError: prompt and response do not fit the model's context, the mesh does not
        divide the prompts or the rows of a micro-batch, or the settings do not fit the
        method.
    """
    plan, temperature = settings.plan(), settings.temperature
    check_fit(model, method, settings, batch_sharding)
    if lora is not None:
        check_lora(method, sample)
    check_teachers(method, teachers)
    if settings.old_logprobs == "strict" and sample is not None:
        raise ValueError(
            "old_logprobs 'strict' draws by a sampler of its own, got "
            f"{type(sample).__name__}"
        )
    sampled = model if place is None else place.model
    own = {"critic": critic_optimizer, "reward_model": reward_optimizer}
    setup = LearnerSetup(
        model,
        task,
        settings,
        batch_sharding,
        optimizer,
        {name: x for name, x in own.items() if x is not None},
        tuple(teachers),
        sampled,
    )
    components = tuple(component.build(setup) for component in method.components)
    parts = build_partial_sampler(
        sampled, task, settings, batch_sharding, components, sample
    )
    return RLLearner(
        task=task,
        method=method,
        settings=settings,
        plan=plan,
        batch_sharding=batch_sharding,
        optimizer=optimizer,
        learning_rate=optimizer.schedule(),
        loss_inputs=method.all_loss_inputs,
        sample=sample or plain_sampler(sampled, task, settings),
        score=make_scorer(logprobs_of(model, temperature)),
        advantages=jax.jit(method.advantages),
        update=build_update(
            model,
            method,
            optimizer,
            temperature=temperature,
            num_groups=plan.groups_per_minibatch,
            lora=lora,
            forward=replaced_forward(components, method),
        ),
        components=components,
        lora=build_lora(model, lora, batch_sharding, settings.seed),
        partial=parts,
        place=place,
    )


def plain_sampler(model: Transformer, task: Task, settings: RLSettings) -> SampleFn:
    """The sampler of rollouts unless another is given."""
    sampling = SamplingSettings(
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=task.eos_token_ids,
        temperature=settings.temperature,
    )
    if settings.old_logprobs == "strict":
        return StrictSampler(model, sampling, settings.group_size)
    return make_sampler(model, sampling, settings.group_size)


def replaced_forward(
    components: Sequence[ComponentLearner], method: Method
) -> PolicyForward | None:
    """What takes the place of the policy's pass in an update; None for nothing.

    Raises:
      ValueError: two components do.
    """
    forwards = [f for c in components if (f := c.policy_forward()) is not None]
    if len(forwards) > 1:
        raise ValueError(
            f"one component at most may replace the policy's pass, got {len(forwards)} "
            f"in {method.name!r}"
        )
    return forwards[0] if forwards else None


def check_fit(
    model: Transformer,
    method: Method,
    settings: RLSettings,
    batch_sharding: BatchSharding,
) -> None:
    """Raises for settings that do not fit the model, the mesh or the method."""
    batch_sharding.check_rows(settings.plan().shape.rows)
    check_batch(
        batch_sharding.mesh,
        batch_sharding.rules,
        settings.prompts_per_step,
        "prompts_per_step",
    )
    if not settings.prompt_width:
        raise ValueError("prompt_width must be >= 1 to train, got 0")
    needed = settings.prompt_width + settings.max_new_tokens
    if needed > model.config.context_length:
        raise ValueError(
            f"prompt_width + max_new_tokens must be at most the model's context_length "
            f"({model.config.context_length}), got {needed}"
        )
    check_method(method, settings)


def check_teachers(method: Method, teachers: Sequence[FrozenModel]) -> None:
    """Raises for teachers that no component of the method reads."""
    if teachers and not any(c.reads_teachers for c in method.components):
        raise ValueError(
            f"teachers are for a method with a Teacher, got {len(teachers)} for "
            f"{method.name!r}"
        )


def check_method(method: Method, settings: RLSettings) -> None:
    """Raises for settings that do not fit the method.

    Args:
      method: any.
      settings: of the run.

    Raises:
      ValueError: groups are too small, or the settings are those of a critic that the
      method does not have.
    """
    if settings.group_size < method.min_group_size:
        raise ValueError(
            f"group_size must be >= {method.min_group_size} for {method.name}, "
            f"got {settings.group_size}"
        )
    absent = COMPONENT_SETTINGS.keys() - {c.name for c in method.components}
    for component in sorted(absent):
        for name in COMPONENT_SETTINGS[component]:
            if value := getattr(settings, name):
                raise ValueError(
                    f"{name} must be {type(value)()} for {method.name}, which has no "
                    f"{component}, got {value}"
                )


def check_lora(method: Method, sample: SampleFn | None) -> None:
    """Raises for methods and samplers that do not work with LoRA."""
    more = [c.name for c in method.components if c.trains_model or c.keeps_params]
    if method.gradients is not None:
        more.append("several gradients")
    if more:
        raise ValueError(
            f"LoRA is for methods that train nothing but the policy, with one "
            f"objective, got {', '.join(more)} in {method.name!r}"
        )
    if isinstance(sample, RolloutEngine):
        raise ValueError(
            f"LoRA needs a sampler that is a function of the parameters, since an "
            f"engine takes plain weights, got {type(sample).__name__}"
        )


def init_rl_state(learner: RLLearner, policy: TrainState) -> RLState:
    """The state at step 0 for a policy, with a new optimiser.

    Components initialise their models from the policy; the reference is the policy
    itself, kept only if the method needs one. With LoRA the policy is the base, shared
    and never donated, and the trained state is its factors.
    """
    models = {c.name: c.init_model(policy) for c in learner.components}
    controls: dict[str, float] = {}
    for component in learner.components:
        controls |= component.init_controls()
    return RLState(
        policy=init_policy_state(learner.lora, policy, learner.optimizer),
        models={name: state for name, state in models.items() if state is not None},
        reference=policy.params if learner.method.uses_reference else None,
        surplus=None,
        step=0,
        draws=0,
        controls=controls,
        base=policy.params if learner.lora is not None else None,
    )
