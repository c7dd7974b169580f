"""Supervised fine-tuning: next-token prediction on packed traces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.forward import policy_logprobs
from jaxrl_reason.learner.packing import (
    Packing,
    PackingShape,
    TrainBatch,
    pack_sequences,
)
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import Metrics, Objective, make_update
from jaxrl_reason.losses import Counts, nll, token_mean
from jaxrl_reason.models import Transformer
from jaxrl_reason.sharding import BatchSharding

Params = Any
# One example: prompt tokens and response tokens.
Example = tuple[Sequence[int], Sequence[int]]


# May be 0 until a learner is built: no stage, or a size taken from the data.
_LEFT_OPEN = ("updates", "row_width", "max_response")


@dataclass(frozen=True)
class SFTSettings:
    """Sizes of the supervised stage.

    An update uses `examples_per_update` examples, packed into as many micro-batches as
    they need. Small micro-batches fit into a core's cache, which matters more on a CPU
    than large matrix products.

    Attributes:
      updates: optimiser steps; 0 for no supervised stage.
      examples_per_update: prompts with responses per update.
      rows_per_micro_batch: packed rows per micro-batch.
      row_width: tokens per row; 0 for the longest prompt plus response.
      slots_per_row: the largest number of examples in a row.
      max_response: the longest response in tokens; 0 for the longest in the data.
      seed: for the order of the examples.
    """

    updates: int = 1200
    examples_per_update: int = 40
    rows_per_micro_batch: int = 4
    row_width: int = 104
    slots_per_row: int = 8
    max_response: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            lowest = 0 if name in _LEFT_OPEN else 1
            if name != "seed" and getattr(self, name) < lowest:
                raise ValueError(
                    f"{name} must be >= {lowest}, got {getattr(self, name)}"
                )

    @property
    def shape(self) -> PackingShape:
        """The shape of a micro-batch."""
        return PackingShape(
            self.rows_per_micro_batch, self.row_width, self.slots_per_row
        )

    @property
    def num_micro(self) -> int:
        """The number of micro-batches in the worst case, one example per row."""
        return -(-self.examples_per_update // self.rows_per_micro_batch)


def sft_objective(model: Transformer) -> Objective:
    """Negative log-likelihood of the response tokens, token mean."""

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        logprobs, entropy = policy_logprobs(model, params, batch, 1.0)
        mask = batch.mask
        metrics = {"entropy": (entropy.sum(where=mask), mask.sum().astype("float32"))}
        return token_mean(nll(logprobs, mask), mask, counts), metrics

    return objective


@dataclass(frozen=True)
class SFTLearner:
    """The compiled functions of the supervised stage.

    Attributes:
      settings: of the stage.
      batch_sharding: sharding of batches.
      learning_rate: number of updates -> learning rate.
      update: f(state, micro-batches, num_active) -> (state, metric pairs); jitted.
    """

    settings: SFTSettings
    batch_sharding: BatchSharding
    learning_rate: Callable[[Any], Any]
    update: Callable[..., tuple[TrainState, Any]]


def build_sft_learner(
    model: Transformer,
    settings: SFTSettings,
    optimizer: OptimizerSettings,
    batch_sharding: BatchSharding,
) -> SFTLearner:
    """Builds the jitted update; nothing is compiled yet."""
    for name in _LEFT_OPEN:
        if not getattr(settings, name):
            raise ValueError(f"{name} must be >= 1 to train, got 0")
    batch_sharding.check_rows(settings.shape.rows)
    if settings.max_response > model.config.context_length:
        raise ValueError(
            f"max_response must be at most the model's context_length "
            f"({model.config.context_length}), got {settings.max_response}"
        )
    update = make_update(
        sft_objective(model), optimizer.build(), num_groups=1, in_place=True
    )
    return SFTLearner(settings, batch_sharding, optimizer.schedule(), update)


def pack_examples(
    settings: SFTSettings, examples: Sequence[Example]
) -> tuple[TrainBatch, Packing]:
    """Packs the examples of one update."""
    return pack_sequences(
        [np.asarray(p, np.int32) for p, _ in examples],
        [np.asarray(r, np.int32) for _, r in examples],
        settings.shape,
        num_micro=settings.num_micro,
        response_width=settings.max_response,
    )


def sft_update(
    learner: SFTLearner, state: TrainState, examples: Sequence[Example]
) -> tuple[TrainState, Any, int]:
    """One update on a batch of examples; (state, metric pairs, tokens trained on).

    The state is donated. The pairs stay on the device, so that the next batch can be
    packed during this update.
    """
    batch, plan = pack_examples(learner.settings, examples)
    tokens = sum(len(p) + len(r) for p, r in examples)
    state, pairs = learner.update(
        state, learner.batch_sharding.put_batch(batch, axis=1), plan.num_active
    )
    return state, pairs, tokens
