"""A second language model that learns rewards of tokens from outcomes (PRIME).

It begins as the policy and has an optimiser of its own. The log-ratio between it and
the frozen reference is the reward of a token (arXiv 2412.01981, 2502.01456).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.losses import Counts
from jaxrl_reason.models import Transformer
from jaxrl_reason.training.batch import TrainBatch
from jaxrl_reason.training.forward import policy_logprobs, sequences
from jaxrl_reason.training.method import LossFn, Method
from jaxrl_reason.training.metrics import Pairs, add_metrics
from jaxrl_reason.training.minibatches import Minibatch, Placement
from jaxrl_reason.training.state import OptimizerSettings, TrainState
from jaxrl_reason.training.update import Metrics, Objective, make_update

Params = Any


@dataclass(frozen=True)
class ImplicitRewardParts:
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
) -> ImplicitRewardParts | None:
    """The reward model that the method asks for, if it does."""
    if method.implicit_reward_loss is None:
        return None
    objective = implicit_reward_objective(
        model, method.implicit_reward_loss, temperature
    )
    update = make_update(objective, optimizer.build(), num_groups=num_groups)
    return ImplicitRewardParts(optimizer, update)


def update_implicit_reward(
    parts: ImplicitRewardParts,
    reward_model: TrainState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
    place: Placement,
) -> tuple[TrainState, Pairs]:
    """One optimiser step a mini-batch towards the outcomes.

    Args:
      parts: of the reward model.
      reward_model: donated.
      minibatches: of the policy's plan; what is out of its loss is out of this one's.
      fields: ref_logprobs [B, T] and correct [B].
      place: puts batches on the mesh.

    Returns:
      The state and the metrics, their names beginning with "reward_model_".
    """
    pairs: Pairs = {}
    for minibatch in minibatches:
        full = minibatch.with_fields(**fields)
        batch, live = place.rows(full.batch), full.plan.live
        reward_model, metrics = parts.update(reward_model, batch, live)
        named = {f"reward_model_{name}": pair for name, pair in metrics.items()}
        pairs = add_metrics(pairs, named)
    return reward_model, pairs
