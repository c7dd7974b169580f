"""A second language model that learns rewards of tokens from outcomes (PRIME).

It begins as the policy and has an optimiser of its own. The log-ratio between it and
the frozen reference is the reward of a token (arXiv 2412.01981, 2502.01456).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.forward import policy_logprobs, sequences
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.train_batch import TrainBatch
from jaxrl_reason.learner.update import Metrics, Objective, make_update
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.method import LossFn, Method
from jaxrl_reason.rl.minibatches import Minibatch
from jaxrl_reason.runs.metrics import Pairs, add_metrics
from jaxrl_reason.sharding import BatchSharding

Params = Any


@dataclass(frozen=True)
class ImplicitRewardLearner:
    """The compiled pieces of an implicit reward model."""

    optimizer: OptimizerSettings
    update: Callable[..., tuple[TrainState, Any]]


def implicit_reward_objective(
    model: Transformer, loss: LossFn, temperature: float
) -> Objective:
    """The loss on a packed micro-batch; right answers have the label 1."""

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        logprobs, _ = policy_logprobs(model, params, batch, temperature)
        return loss(
            logprobs,
            sequences(batch.ref_logprobs),
            sequences(batch.mask),
            sequences(batch.correct),
            counts,
        )

    return objective


def build_implicit_reward(
    model: Transformer,
    method: Method,
    optimizer: OptimizerSettings,
    *,
    temperature: float,
    num_groups: int,
) -> ImplicitRewardLearner | None:
    """The reward model that the method asks for, if it does."""
    if method.implicit_reward_loss is None:
        return None
    objective = implicit_reward_objective(
        model, method.implicit_reward_loss, temperature
    )
    update = make_update(objective, optimizer.build(), num_groups=num_groups)
    return ImplicitRewardLearner(optimizer, update)


def update_implicit_reward(
    learner: ImplicitRewardLearner,
    reward_model: TrainState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
    batch_sharding: BatchSharding,
) -> tuple[TrainState, Pairs]:
    """One optimiser step a mini-batch towards the outcomes.

    Args:
      learner: of the reward model.
      reward_model: donated.
      minibatches: of the policy's plan; what is out of its loss is out of this one's.
      fields: ref_logprobs [B, T] and correct [B].
      batch_sharding: puts batches on the mesh.

    Returns:
      The state and the metrics.
    """
    pairs: Pairs = {}
    for minibatch in minibatches:
        full = minibatch.with_fields(**fields)
        batch, live = batch_sharding.put_micro_batches(full.batch), full.plan.live
        reward_model, metrics = learner.update(reward_model, batch, live)
        pairs = add_metrics(pairs, metrics)
    return reward_model, pairs
