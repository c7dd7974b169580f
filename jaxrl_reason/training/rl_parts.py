"""What an RL run is built of: settings, state and the compiled pieces."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxrl_reason.models import Transformer, ValueModel
from jaxrl_reason.sampler import SamplingSettings, make_sampler
from jaxrl_reason.sharding import check_batch
from jaxrl_reason.tasks.task import Task
from jaxrl_reason.training.batch import PackingShape, Rollouts, TrainBatch
from jaxrl_reason.training.collect import SampleFn
from jaxrl_reason.training.forward import critic_values, policy_logprobs
from jaxrl_reason.training.methods import Advantages, Experience, Method
from jaxrl_reason.training.minibatches import MinibatchPlan, Placement
from jaxrl_reason.training.objectives import (
    critic_objective,
    minibatch_inputs,
    policy_objective,
    token_selector,
)
from jaxrl_reason.training.state import (
    OptimizerSettings,
    TrainState,
    placed_state,
    restart_optimizer,
)
from jaxrl_reason.training.update import make_scorer, make_update

Params = Any


@dataclass(frozen=True)
class RLSettings:
    """Sizes of an RL run; lengths in tokens.

    `updates_per_rollout` mini-batches of whole groups are made of one rollout, each one
    optimiser step, so the ratio leaves 1 after the first and clipping acts.
    """

    steps: int = 30
    prompts_per_step: int = 24
    group_size: int = 16
    updates_per_rollout: int = 4
    prompt_width: int = 8
    max_new_tokens: int = 104
    temperature: float = 1.0
    max_rounds: int = 10
    rows_per_micro_batch: int = 4
    row_width: int = 224
    slots_per_row: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "temperature" and not value > 0:
                raise ValueError(f"temperature must be > 0 in training, got {value}")
            if name not in ("temperature", "seed") and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        if self.group_size < 2:
            raise ValueError(f"group_size must be >= 2, got {self.group_size}")

    @property
    def sequences(self) -> int:
        """B, sequences trained on in a step."""
        return self.prompts_per_step * self.group_size

    def plan(self) -> MinibatchPlan:
        """Static shapes of the mini-batches."""
        return MinibatchPlan.build(
            num_prompts=self.prompts_per_step,
            group_size=self.group_size,
            num_minibatches=self.updates_per_rollout,
            shape=PackingShape(
                self.rows_per_micro_batch, self.row_width, self.slots_per_row
            ),
            max_sequence=self.prompt_width + self.max_new_tokens,
        )


@struct.dataclass
class RLState:
    """Everything that an RL run carries from step to step."""

    policy: TrainState
    critic: TrainState | None
    reference: Params | None
    surplus: Rollouts | None  # groups with signal that the last batch had no room for
    step: int = struct.field(pytree_node=False)
    draws: int = struct.field(pytree_node=False)  # rollouts made so far


@dataclass(frozen=True)
class RLParts:
    """The compiled pieces of a run, built once by `build_rl`."""

    task: Task
    method: Method
    settings: RLSettings
    plan: MinibatchPlan
    place: Placement
    learning_rate: Callable[[Any], Any]
    sample: SampleFn
    score: Callable[..., jax.Array]
    advantages: Callable[[Experience], Advantages]
    update: Callable[..., tuple[TrainState, Any]]
    values: Callable[..., jax.Array] | None
    update_critic: Callable[..., tuple[TrainState, Any]] | None
    weights: Callable[..., jax.Array] | None = None
    select: Callable[..., jax.Array] | None = None


def build_rl(
    model: Transformer,
    task: Task,
    method: Method,
    settings: RLSettings,
    optimizer: OptimizerSettings,
    place: Placement,
    critic_optimizer: OptimizerSettings | None = None,
) -> RLParts:
    """Builds the jitted functions of a run; nothing is compiled yet.

    Raises:
      ValueError: prompt and response do not fit the model's context, or the mesh does
        not divide the prompts or the rows of a micro-batch.
    """
    plan = settings.plan()
    place.check(plan.shape)
    check_batch(place.mesh, place.rules, settings.prompts_per_step, "prompts_per_step")
    needed = settings.prompt_width + settings.max_new_tokens
    if needed > model.config.context_length:
        raise ValueError(
            f"prompt_width + max_new_tokens must be at most the model's context_length "
            f"({model.config.context_length}), got {needed}"
        )
    sampling = SamplingSettings(
        max_new_tokens=settings.max_new_tokens,
        end_tokens=task.end_tokens,
        temperature=settings.temperature,
    )
    objective = policy_objective(
        model,
        method,
        temperature=settings.temperature,
        num_groups=plan.groups_per_minibatch,
    )

    def logprobs(params: Params, batch: TrainBatch) -> jax.Array:
        return policy_logprobs(model, params, batch, settings.temperature)[0]

    values, update_critic = None, None
    if method.value_loss is not None:
        critic = ValueModel(model.config, model.constrain)
        values = make_scorer(partial(critic_values, critic))
        update_critic = make_update(
            critic_objective(critic, method),
            (critic_optimizer or optimizer).build(),
            num_groups=plan.groups_per_minibatch,
        )
    return RLParts(
        task=task,
        method=method,
        settings=settings,
        plan=plan,
        place=place,
        learning_rate=optimizer.schedule(),
        sample=make_sampler(model, sampling, settings.group_size),
        score=make_scorer(logprobs),
        advantages=jax.jit(method.advantages),
        update=make_update(
            objective,
            optimizer.build(),
            num_groups=plan.groups_per_minibatch,
            of_minibatch=minibatch_inputs(method, num_groups=plan.groups_per_minibatch),
        ),
        values=values,
        update_critic=update_critic,
        weights=jax.jit(method.weights) if method.weights is not None else None,
        select=token_selector(method.selected) if method.selected is not None else None,
    )


def start_rl(
    parts: RLParts,
    policy: TrainState,
    model: Transformer,
    optimizer: OptimizerSettings,
    critic_optimizer: OptimizerSettings | None = None,
) -> RLState:
    """The state of step 0 around a (primed) policy, whose optimiser starts anew.

    A critic starts from the policy's transformer with a zero head; a reference is the
    policy itself, kept only if the method asks for one.
    """
    state = restart_optimizer(policy, optimizer.build())
    critic = None
    if parts.method.value_loss is not None:
        backbone = restart_optimizer(policy, optimizer.build()).params
        head = parts.place.whole(jnp.zeros((model.config.width,), jnp.float32))
        critic = placed_state(
            {
                "backbone": {k: v for k, v in backbone.items() if k != "head"},
                "value_head": head,
            },
            (critic_optimizer or optimizer).build(),
        )
    reference = policy.params if parts.method.uses_reference else None
    return RLState(state, critic, reference, None, step=0, draws=0)
