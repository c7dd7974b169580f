"""Compiled functions on packed pairs, for preference training and reward models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import Metrics, Objective, make_scorer, make_update
from jaxrl_reason.offline.preference_batch import PreferenceSettings
from jaxrl_reason.sharding import BatchSharding

Params = Any
MethodT = TypeVar("MethodT")


@dataclass(frozen=True)
class PairLearner(Generic[MethodT]):
    """The compiled functions of a learner on pairs or comparisons.

    Attributes:
      settings: sizes of a batch.
      method: the loss and its inputs.
      batch_sharding: places batches on the mesh.
      optimizer: of each training run.
      score: (params, batch, num_active) -> a number per response token.
      update: (state, batch, num_active) -> the next state and the metrics.
    """

    settings: PreferenceSettings
    method: MethodT
    batch_sharding: BatchSharding
    optimizer: OptimizerSettings
    score: Callable[[Params, TrainBatch, Any], jax.Array]
    update: Callable[..., tuple[TrainState, Metrics]]


def build_pair_learner(
    per_token: Callable[[Params, TrainBatch], jax.Array],
    objective: Objective,
    method: MethodT,
    settings: PreferenceSettings,
    optimizer: OptimizerSettings,
    batch_sharding: BatchSharding,
    *,
    context_length: int,
) -> PairLearner[MethodT]:
    """Builds the jitted functions; nothing is compiled yet.

    Args:
      per_token: (params, batch) -> [Q, T], a number per response token.
      objective: the method's loss on a packed micro-batch.
      method: the method of the objective.
      settings: sizes of a batch.
      optimizer: of each training run.
      batch_sharding: places batches on the mesh.
      context_length: the model's.

    Returns:
      The learner.

    Raises:
      ValueError: prompt and response do not fit the model's context, or the mesh does
        not divide the rows of a micro-batch.
    """
    batch_sharding.check_rows(settings.shape.rows)
    needed = settings.max_prompt + settings.max_response
    if needed > context_length:
        raise ValueError(
            f"max_prompt + max_response must be at most the model's context_length "
            f"({context_length}), got {needed}"
        )
    return PairLearner(
        settings=settings,
        method=method,
        batch_sharding=batch_sharding,
        optimizer=optimizer,
        score=make_scorer(per_token),
        update=make_update(
            objective, optimizer.build(), num_groups=settings.pairs_per_update
        ),
    )
