"""Optional components of a method, and the hooks through which an iteration calls them.

A critic, an implicit reward model, a greedy baseline, a rollout correction, a token
selection, a controller of coefficients: each is a `Component` in `Method.components`,
in its own file with its inputs, its update and its metrics. The loop knows none of them
by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.models import Transformer
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.update_guard import Watch
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.task import Task

if TYPE_CHECKING:
    from jaxrl_reason.rl.method import Advantages, Experience
    from jaxrl_reason.rl.minibatches import RolloutBatch
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState
    from jaxrl_reason.rl.rl_settings import RLSettings
    from jaxrl_reason.rl.rollouts import Rollouts


# f(params, micro-batch, frozen) -> log-probs [Q, T], inputs of the loss by name.
PolicyForward = Callable[
    [Any, TrainBatch, Mapping[str, Any]], tuple[jax.Array, Mapping[str, jax.Array]]
]


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """A model that is not trained, with its parameters on the mesh.

    Attributes:
      model: the transformer.
      params: its parameters.
    """

    model: Transformer
    params: Any


@dataclass(frozen=True)
class LearnerSetup:
    """What a component is built from.

    Attributes:
      model: the policy's model.
      task: has the EOS tokens.
      settings: of the run.
      batch_sharding: places batches on the mesh.
      optimizer: the policy's optimiser settings.
      own_optimizers: those of components that have their own, by component name.
      teachers: frozen models beside the policy.
      sampled: the policy's model as samplers apply it; None for `model`.
    """

    model: Transformer
    task: Task
    settings: "RLSettings"
    batch_sharding: BatchSharding
    optimizer: OptimizerSettings
    own_optimizers: Mapping[str, OptimizerSettings]
    teachers: tuple[FrozenModel, ...] = ()
    sampled: Transformer | None = None

    def optimizer_of(self, name: str) -> OptimizerSettings:
        """The optimiser of a component that trains a model."""
        return self.own_optimizers.get(name, self.optimizer)


class ComponentLearner:
    """A component with its compiled functions: the hooks of an iteration, in order.

    Each does nothing unless a component overrides it. A model that a component trains
    is in `RLState.models` under its name, numbers that it keeps between steps are in
    `RLState.controls`; checkpoints hold both.
    """

    name: ClassVar[str] = ""

    def watched(self, watch: Watch) -> Self:
        """The component with its update function watched, if it has one.

        Args:
          watch: (update, name of the model) -> the function to call in its place.
        """
        return self

    def init_model(self, policy: TrainState) -> TrainState | None:
        """The model that it trains or keeps, at update 0; None if there is none."""
        return None

    def init_controls(self) -> Mapping[str, float]:
        """The numbers that the component keeps between steps, before the first."""
        return {}

    @property
    def adds_to_rollouts(self) -> bool:
        """Whether it has an `extend_rollouts` of its own."""
        return type(self).extend_rollouts is not ComponentLearner.extend_rollouts

    def extend_rollouts(
        self,
        learner: "RLLearner",
        sample: Callable[..., "Rollouts"],
        problems: Sequence[Any],
        rollouts: "Rollouts",
    ) -> "Rollouts":
        """Samples in addition to the groups of a round, or reads more off them.

        Args:
          learner: of the run.
          sample: f(sample=sampler, group_size=G) -> rollouts to the same problems.
          problems: P of them, one of each group.
          rollouts: the round's graded groups, before their rewards are computed.
        """
        return rollouts

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: "RolloutBatch",
        experience: "Experience",
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """Additional inputs of the advantage estimator and, by keyword, of the loss.

        Returns:
          The state; arrays for `Experience.inputs`; metrics.
        """
        return state, {}, {}

    def after_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: "RolloutBatch",
        experience: "Experience",
        estimate: "Advantages",
    ) -> "tuple[RLState, Row]":
        """The component's own update, before the policy's: state and metrics."""
        return state, {}

    def coefficients(self, controls: Mapping[str, float]) -> Mapping[str, float]:
        """Scalars passed to the loss by keyword in this step; they are traced."""
        return {}

    def policy_forward(self) -> PolicyForward | None:
        """The policy's pass in an update, where its loss reads more than log-probs.

        The gradient goes through all that it gives. None leaves `policy_logprobs`.
        """
        return None

    def frozen_params(self, state: "RLState") -> Mapping[str, Any]:
        """Parameters by name that its `policy_forward` is handed as `frozen`.

        Args:
          state: before the updates of the step.
        """
        return {}

    def minibatch_inputs(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: "RolloutBatch",
        minibatch: TrainBatch,
        update: int,
    ) -> dict[str, jax.Array]:
        """Inputs of the loss that need the whole mini-batch and the current policy.

        Args:
          learner: of the run.
          state: its policy is the one before this update.
          batch: of the step.
          minibatch: the packed mini-batch, on the mesh, with its other inputs.
          update: number of the mini-batch in `batch.minibatches`.
        """
        return {}

    def next_controls(self, controls: Mapping[str, float], row: Row) -> Row:
        """The numbers that the component keeps, after a step with these metrics."""
        return {}


class Component(ABC):
    """An optional part of a method: a frozen dataclass of functions and settings.

    Attributes:
      name: of its model in `RLState.models`, of its metrics and its optimiser.
      loss_inputs: names of what it passes to the loss by keyword.
      needs_reference: whether it reads the log-probs of a frozen reference.
      trains_model: whether it trains a model with an optimiser besides the policy.
      keeps_params: whether it keeps a copy of the policy's parameters.
      reads_teachers: whether it uses the frozen models of `build_rl_learner`.
    """

    name: ClassVar[str] = ""
    loss_inputs: ClassVar[tuple[str, ...]] = ()
    needs_reference: ClassVar[bool] = False
    trains_model: ClassVar[bool] = False
    keeps_params: ClassVar[bool] = False
    reads_teachers: ClassVar[bool] = False

    @abstractmethod
    def build(self, setup: LearnerSetup) -> ComponentLearner:
        """Builds its jitted functions; nothing is compiled yet."""
