"""A critic: a value model with its own optimiser."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.forward import critic_values
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_value_state
from jaxrl_reason.learner.update import Metrics, Objective, make_scorer, make_update
from jaxrl_reason.losses import Counts, explained_variance, token_mean
from jaxrl_reason.models import ValueModel
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Advantages, Experience
from jaxrl_reason.rl.minibatches import (
    Minibatch,
    MinibatchPlan,
    RolloutBatch,
    run_updates,
    score_sequences,
)
from jaxrl_reason.runs.metrics_log import Row, finish_metrics
from jaxrl_reason.runs.update_guard import Watch
from jaxrl_reason.sharding import BatchSharding

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

Params = Any
# f(values, old_values, returns, mask) -> [B, T]
ValueLoss = Callable[..., jax.Array]


@dataclass(frozen=True)
class Critic(Component):
    """A value model that is trained on the returns and gives the estimator its values.

    An estimator reads `experience["values"]` [B, T] and returns the targets in
    `Advantages.returns`.

    With `RLSettings.bootstrap_truncated` it also gives `bootstrap` [B], the value after
    the last token of a response that the limit cut off, 0 for one that ended.

    Attributes:
      value_loss: f(values, old_values, returns, mask) -> [B, T].
    """

    name: ClassVar[str] = "critic"
    trains_model: ClassVar[bool] = True
    value_loss: ValueLoss

    def build(self, setup: LearnerSetup) -> "CriticLearner":
        """Has its own mini-batches, so it may make more updates than the policy."""
        plan, optimizer = setup.settings.critic_plan(), setup.optimizer_of(self.name)
        model = ValueModel(setup.model.config, setup.model.constrain)
        return CriticLearner(
            plan=plan,
            optimizer=optimizer,
            batch_sharding=setup.batch_sharding,
            bootstrap_truncated=setup.settings.bootstrap_truncated,
            values=make_scorer(partial(critic_values, model)),
            update=make_update(
                critic_objective(model, self.value_loss),
                optimizer.build(),
                num_groups=plan.groups_per_minibatch,
            ),
        )


@dataclass(frozen=True)
class CriticLearner(ComponentLearner):
    """The compiled functions of a critic; its mini-batches need not be the policy's.

    Attributes:
      plan: shapes of its mini-batches.
      optimizer: its optimiser settings.
      batch_sharding: where batches live.
      bootstrap_truncated: whether the values after truncated responses are asked for.
      values: params, batch -> values; jitted.
      update: one optimiser step; jitted.
    """

    name: ClassVar[str] = "critic"
    plan: MinibatchPlan
    optimizer: OptimizerSettings
    batch_sharding: BatchSharding
    bootstrap_truncated: bool
    values: Callable[..., jax.Array]
    update: Callable[..., tuple[TrainState, Any]]

    def watched(self, watch: Watch) -> Self:
        """With its optimiser step watched."""
        return replace(self, update=watch(self.update, self.name))

    def init_model(self, policy: TrainState) -> TrainState:
        """The policy's transformer with a value head of zeros."""
        return init_value_state(policy, self.optimizer, self.batch_sharding)

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """Values [B, T] of the critic before its updates; [B] after truncated ones."""
        minibatches = batch.minibatches
        if self.bootstrap_truncated:
            minibatches = [one_value_more(m) for m in minibatches]
        values = score_sequences(
            self.values,
            state.models[self.name].params,
            minibatches,
            learner.batch_sharding,
        )
        if not self.bootstrap_truncated:
            return state, {"values": values}, {}
        truncated, rows = experience.truncated, np.arange(len(values))
        after = np.where(truncated, values[rows, experience.lengths], 0.0)  # [B]
        found = {"values": values[:, :-1], "bootstrap": after}
        mean = float(after.sum() / max(truncated.sum(), 1))
        return state, found, {"critic/bootstrap_mean": mean}

    def after_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
        estimate: Advantages,
    ) -> "tuple[RLState, Row]":
        """One optimiser step per mini-batch, on the returns of the estimate."""
        minibatches = batch.minibatches
        if self.plan != learner.plan:
            order = batch.rng.permutation(len(batch.rollouts.problem_ids))
            order = order.reshape(self.plan.num_minibatches, -1)
            minibatches = self.plan.pack(batch.rollouts, order, batch.loss_rows)
        mask = np.asarray(experience.mask)
        if estimate.value_mask is not None:
            mask = mask & estimate.value_mask
            minibatches = [only(m, mask) for m in minibatches]
        values, returns = experience["values"], np.asarray(estimate.returns)
        critic, pairs = run_updates(
            self.update,
            state.models[self.name],
            minibatches,
            {"returns": returns, "old_values": np.asarray(values)},
            learner.batch_sharding,
        )
        row = finish_metrics(pairs, self.name)
        of_tokens = returns[mask].astype(np.float64)
        if of_tokens.size and of_tokens.var() > 1e-12:  # more than rounding error
            explained = explained_variance(values, returns, mask)
            row["critic/explained_variance"] = float(explained)
        return replace(state, models={**state.models, self.name: critic}), row


def one_value_more(minibatch: Minibatch) -> Minibatch:
    """T + 1 columns: v_t is the value before token t, so the last is that after all.

    The last token of a response stands in its row, and so does the state behind it.
    """
    batch = minibatch.batch
    wider = np.pad(batch.mask, [(0, 0), (0, 0), (0, 1)])  # [K, Q, T + 1]
    return replace(minibatch, batch=replace(batch, mask=wider))


def only(minibatch: Minibatch, mask: np.ndarray) -> Minibatch:
    """The mini-batch with no tokens in the loss but those of a mask [B, T]."""
    batch = minibatch.batch
    kept = batch.mask & minibatch.plan.place(mask[minibatch.index])  # [K, Q, T]
    return replace(minibatch, batch=replace(batch, mask=kept))


def rewards_seen(x: Experience) -> jax.Array:
    """[B] sequence rewards, 0 where the critic's value stands for what was cut off.

    An unfinished answer is graded as wrong; beside `bootstrap` that would count the end
    of the response twice.
    """
    if "bootstrap" not in x.inputs:
        return jnp.asarray(x.rewards)
    return jnp.where(x.truncated, 0.0, x.rewards)


def critic_objective(model: ValueModel, value_loss: ValueLoss) -> Objective:
    """The value loss, averaged over the tokens of the mini-batch."""

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        mask = batch.mask  # [Q, T]
        values = critic_values(model, params, batch)  # [Q, T]
        per_token = value_loss(values, batch["old_values"], batch["returns"], mask)
        return token_mean(per_token, mask, counts), {}

    return objective
