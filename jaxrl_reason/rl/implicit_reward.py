"""A second language model that learns token rewards from outcomes (PRIME).

It is initialised from the policy and has its own optimiser. The log-ratio between it
and the frozen reference is the reward of a token (arXiv 2412.01981, 2502.01456).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import numpy as np

from jaxrl_reason.learner.forward import policy_logprobs
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.learner.update import Metrics, Objective, make_update
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Experience, LossFn
from jaxrl_reason.rl.minibatches import RolloutBatch, run_updates, score_sequences
from jaxrl_reason.runs.metrics_log import Row, finish_metrics
from jaxrl_reason.runs.update_guard import Watch

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

Params = Any


@dataclass(frozen=True)
class ImplicitReward(Component):
    """A reward model that is updated before the advantages are computed.

    An estimator reads `experience["reward_logprobs"]` [B, T], its log-probs.

    Attributes:
      loss: f(logprobs, ref_logprobs, mask, labels, counts) -> (scalar, metrics); right
        answers have the label 1.
    """

    name: ClassVar[str] = "reward_model"
    needs_reference: ClassVar[bool] = True
    trains_model: ClassVar[bool] = True
    loss: LossFn

    def build(self, setup: LearnerSetup) -> "ImplicitRewardLearner":
        """Uses the policy's mini-batches, so both losses leave out the same rows."""
        optimizer, settings = setup.optimizer_of(self.name), setup.settings
        update = make_update(
            implicit_reward_objective(setup.model, self.loss, settings.temperature),
            optimizer.build(),
            num_groups=settings.plan().groups_per_minibatch,
        )
        return ImplicitRewardLearner(optimizer, update)


@dataclass(frozen=True)
class ImplicitRewardLearner(ComponentLearner):
    """The compiled functions of an implicit reward model.

    Attributes:
      optimizer: its optimiser settings.
      update: one optimiser step; jitted.
    """

    name: ClassVar[str] = "reward_model"
    optimizer: OptimizerSettings
    update: Callable[..., tuple[TrainState, Any]]

    def watched(self, watch: Watch) -> Self:
        """With its optimiser step watched."""
        return replace(self, update=watch(self.update, self.name))

    def init_model(self, policy: TrainState) -> TrainState:
        """A copy of the policy."""
        return init_state(policy.params, self.optimizer.build(), copy=True)

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """Trains it on the outcomes, then computes the rewards with it."""
        model, pairs = run_updates(
            self.update,
            state.models[self.name],
            batch.minibatches,
            {name: experience[name] for name in ("ref_logprobs", "correct")},
            learner.batch_sharding,
        )
        logprobs = score_sequences(
            learner.score, model.params, batch.minibatches, learner.batch_sharding
        )
        state = replace(state, models={**state.models, self.name: model})
        return state, {"reward_logprobs": logprobs}, finish_metrics(pairs, self.name)


def implicit_reward_objective(
    model: Transformer, loss: LossFn, temperature: float
) -> Objective:
    """The loss on a packed micro-batch; right answers have the label 1."""

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        logprobs, _ = policy_logprobs(model, params, batch, temperature)  # [Q, T]
        return loss(
            logprobs,
            batch["ref_logprobs"],
            batch.mask,
            batch["correct"],
            counts,
        )

    return objective
