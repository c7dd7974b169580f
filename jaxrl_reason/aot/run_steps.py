"""A run's own compiled functions, with shapes in place of arrays.

The functions are those of `build_rl_learner`, which a run calls with the same settings;
nothing is copied here. Only their inputs are abstract: shapes, types and shardings.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.aot.known_models import model_shape
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import TrainState, abstract_state
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.minibatches import MinibatchPlan
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.sampler import SamplingSettings, make_sampler, weight_placement
from jaxrl_reason.sharding import BatchSharding, check_batch
from jaxrl_reason.train.devices import run_rules
from jaxrl_reason.train.methods import build_method, kind_of
from jaxrl_reason.train.train_settings import TrainSettings

STEPS = ("score", "update", "sample")


@dataclass(frozen=True)
class ShapeTask:
    """Takes the place of a task where only shapes are known.

    Attributes:
      eos_token_ids: what the sampler stops at.
    """

    eos_token_ids: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class RunSteps:
    """The functions of a run on a mesh and what they are called with.

    Attributes:
      learner: of the run.
      state: of the policy; shapes with shardings, as all that follows.
      batch: one mini-batch of its micro-batches.
      sampled: the parameters as the sampler reads them.
      prompts: [P, Tp], [P] and [P * G] of a rollout.
      own_sampler: whether the sampler has devices of its own.
    """

    learner: RLLearner
    state: TrainState
    batch: TrainBatch
    sampled: Any
    prompts: tuple[Any, Any, Any]
    own_sampler: bool = False

    @property
    def calls(self) -> dict[str, tuple[Any, tuple[Any, ...]]]:
        """For each of `STEPS` the jitted function and its arguments."""
        # As the loop passes it: a plain number.
        active = jax.ShapeDtypeStruct((), jnp.int32, weak_type=True)
        params = self.state.params
        sampler: Any = self.learner.sample  # a PlainSampler
        return {
            "score": (self.learner.score, (params, self.batch, active)),
            "update": (self.learner.update, (self.state, self.batch, active)),
            "sample": (sampler.program, (self.sampled, *self.prompts)),
        }


def run_steps(
    settings: TrainSettings,
    mesh: Mesh,
    memory: float = 0.0,
    sampler_mesh: Mesh | None = None,
    **changes: Any,
) -> RunSteps:
    """The functions of a run of these settings; nothing is compiled or allocated.

    Args:
      settings: of the run; its prompts' and rows' widths must be set.
      mesh: of devices that may only be described.
      memory: bytes of a device, by which the sampler's copy of the weights is chosen.
      sampler_mesh: of a sampler on devices of its own.
      **changes: to the model's `TransformerConfig`, for counting.

    Raises:
      ValueError: the model is unknown, the mesh does not divide it or the batch, or
        settings do not fit together.
    """
    check_run(settings)
    rules = run_rules(settings.sequence_parallel)
    config = replace(
        model_shape(settings.model.source),
        dtype=settings.model.dtype,
        **{
            "remat": settings.model.remat,
            "attention": settings.model.attention,
            **changes,
        },
    )
    model = Transformer(config, constrain=rules.constrainer(mesh))
    method = method_of_shapes(settings)
    task: Any = ShapeTask()
    place = weight_placement(model, settings.sampler.weights, memory)
    learner = build_rl_learner(
        model,
        task,
        method,
        settings.rl,
        settings.rl_schedule(),
        BatchSharding(mesh, rules),
        place=None if sampler_mesh is not None else place,
    )
    state = abstract_state(model, learner.optimizer.build(), mesh, rules)
    steps = RunSteps(
        learner,
        state,
        abstract_batch(learner.plan, settings.rl.max_new_tokens, learner),
        state.params if place is None else place.abstract(state.params),
        abstract_prompts(
            learner.batch_sharding, settings.rl, prompts_at_once(settings)
        ),
    )
    if sampler_mesh is None:
        return steps
    put = BatchSharding(sampler_mesh, rules)
    return with_own_sampler(steps, put, config, prompts_at_once(settings))


def with_own_sampler(
    steps: RunSteps, put: BatchSharding, config: TransformerConfig, prompts: int
) -> RunSteps:
    """The same with a sampler on devices of its own, as `OwnDevicesSampler` has it.

    It reads the parameters in the type of the training.

    Args:
      steps: of the run.
      put: on the sampler's mesh.
      config: of the model.
      prompts: of a call.

    Raises:
      ValueError: its mesh does not divide the model or the prompts.
    """
    learner, settings = steps.learner, steps.learner.settings
    check_batch(put.mesh, put.rules, prompts, "prompts that the sampler draws for")
    model = Transformer(config, constrain=put.rules.constrainer(put.mesh))
    sampling = SamplingSettings(
        max_new_tokens=settings.max_new_tokens,
        eos_token_ids=learner.task.eos_token_ids,
        temperature=settings.temperature,
    )
    sample = make_sampler(model, sampling, settings.group_size)
    state = abstract_state(model, learner.optimizer.build(), put.mesh, put.rules)
    return replace(
        steps,
        learner=replace(learner, sample=sample),
        sampled=state.params,
        prompts=abstract_prompts(put, settings, prompts),
        own_sampler=True,
    )


def prompts_at_once(settings: TrainSettings) -> int:
    """Prompts whose responses the sampler decodes at a time.

    A sampler with slots refills them one by one. Its programs depend on what the host
    finds, so the plain sampler stands in for it, with as many sequences as slots.

    Args:
      settings: of the run.

    Raises:
      ValueError: there are fewer slots than responses to a prompt.
    """
    slots, rl = settings.sampler.slots, settings.rl
    if not slots:
        return rl.prompts_per_step
    if slots < rl.group_size:
        raise ValueError(
            f"sampler.slots must hold a group of {rl.group_size} responses, got {slots}"
        )
    return min(rl.prompts_per_step, slots // rl.group_size)


def untold_models(settings: TrainSettings) -> list[str]:
    """Components that train or keep models besides the policy, such as a critic.

    Their steps are not compiled, and their memory is not counted.

    Args:
      settings: of the run.
    """
    method = method_of_shapes(settings)
    return [c.name for c in method.components if c.trains_model or c.keeps_params]


def method_of_shapes(settings: TrainSettings) -> Method:
    """The run's method, which needs no data for its shapes."""
    return build_method(
        settings.method,
        max_new_tokens=settings.rl.max_new_tokens,
        dapo_settings=settings.dapo,
    )


def check_run(settings: TrainSettings) -> None:
    """Raises for runs that have no steps of the RL loop, or no model or sizes yet."""
    model_shape(settings.model.source)
    if kind_of(settings.method) != "rl":
        raise ValueError(
            f"steps are compiled for methods of the RL loop, got {settings.method}"
        )
    for name in ("prompt_width", "row_width"):
        if not getattr(settings.rl, name):
            raise ValueError(f"rl.{name} must be set where no data is read, got 0")
    if settings.model.lora_rank:
        raise ValueError(
            f"steps are compiled for all parameters, without factors, got "
            f"model.lora_rank {settings.model.lora_rank}"
        )


def abstract_batch(
    plan: MinibatchPlan, response_width: int, learner: RLLearner
) -> TrainBatch:
    """What `MinibatchPlan.pack` and `run_updates` make, as shapes on the mesh."""
    put = learner.batch_sharding
    sharding = NamedSharding(put.mesh, PartitionSpec(None, put.rules.batch))
    rows, slots = (
        (plan.shape.rows, plan.shape.width),
        plan.shape.rows * plan.shape.slots,
    )

    def whole(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct((plan.num_micro, *shape), dtype, sharding=sharding)

    per_token = whole(slots, response_width, dtype=jnp.float32)
    inputs = {"old_logprobs": per_token, "advantages": per_token}
    for name in learner.loss_inputs:
        if name == "correct":
            inputs[name] = whole(slots, dtype=jnp.bool_)
        elif name not in ("entropy", "group_ids"):
            inputs[name] = per_token
    return TrainBatch(
        tokens=whole(*rows),
        positions=whole(*rows),
        segment_ids=whole(*rows),
        starts=whole(slots),
        mask=whole(slots, response_width, dtype=jnp.bool_),
        group_ids=whole(slots),
        branch_ids=whole(*rows),
        inputs=inputs,
    )


def abstract_prompts(
    put: BatchSharding, rl: RLSettings, prompts: int
) -> tuple[Any, Any, Any]:
    """The prompts, their lengths and the keys of one call, as shapes on the mesh."""
    sharding = NamedSharding(put.mesh, PartitionSpec(put.rules.batch))

    def whole(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    keys = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return (
        whole(prompts, rl.prompt_width),
        whole(prompts),
        whole(prompts * rl.group_size, dtype=keys),
    )
