"""Rollouts split into mini-batches of whole groups and packed for the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.packing import (
    Packing,
    PackingShape,
    pack_sequences,
    with_fields,
)
from jaxrl_reason.learner.train_batch import TrainBatch
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.sharding import BatchSharding


@dataclass(frozen=True)
class Minibatch:
    """One optimiser step's sequences: packed, and where they came from."""

    index: np.ndarray  # [N] rows of the [B, T] arrays
    batch: TrainBatch  # leading axis K
    plan: Packing

    def with_fields(self, **values: np.ndarray) -> "Minibatch":
        """Adds values given for the whole batch [B, ...]."""
        own = {name: np.asarray(v)[self.index] for name, v in values.items()}
        return Minibatch(
            self.index, with_fields(self.batch, self.plan, **own), self.plan
        )


@dataclass(frozen=True)
class MinibatchPlan:
    """Static shapes of a step's mini-batches.

    Attributes:
      num_minibatches: U.
      groups_per_minibatch: P / U, group ids are 0 .. P/U - 1 inside each.
      shape: of a micro-batch.
      num_micro: K, enough for the longest responses.
    """

    num_minibatches: int
    groups_per_minibatch: int
    shape: PackingShape
    num_micro: int

    @classmethod
    def build(
        cls,
        *,
        num_prompts: int,
        group_size: int,
        num_minibatches: int,
        shape: PackingShape,
        max_sequence: int,
    ) -> "MinibatchPlan":
        """Allocates for the worst case: every sequence `max_sequence` tokens long.

        Best fit leaves at most one row with fewer sequences than always fit, so this
        many rows are enough for any lengths.
        """
        if num_prompts % num_minibatches:
            raise ValueError(
                f"prompts_per_step ({num_prompts}) must be a multiple of the updates "
                f"a rollout, got {num_minibatches}"
            )
        if shape.width < max_sequence:
            raise ValueError(
                f"row_width must hold a prompt and a response ({max_sequence} tokens), "
                f"got {shape.width}"
            )
        groups = num_prompts // num_minibatches
        per_row = min(shape.slots, shape.width // max_sequence)
        rows = -(-groups * group_size // per_row) + 1
        return cls(num_minibatches, groups, shape, -(-rows // shape.rows))

    def split(
        self,
        rollouts: Rollouts,
        rng: np.random.Generator,
        loss_rows: np.ndarray,
    ) -> list[Minibatch]:
        """Shuffles the groups and packs U mini-batches.

        Args:
          rollouts: P groups.
          rng: for the order of the groups.
          loss_rows: [B] bool, False where a response does not count in the loss.
        """
        order = rng.permutation(rollouts.num_prompts)
        return [
            self.pack(rollouts, groups, loss_rows)
            for groups in order.reshape(self.num_minibatches, -1)
        ]

    def pack(
        self, rollouts: Rollouts, groups: np.ndarray, loss_rows: np.ndarray
    ) -> Minibatch:
        """One mini-batch of at most `groups_per_minibatch` groups."""
        g = rollouts.group_size
        index = (groups[:, None] * g + np.arange(g)).reshape(-1)
        prompts = [
            rollouts.prompt_tokens[i // g, : rollouts.prompt_lengths[i // g]]
            for i in index
        ]
        responses = [
            rollouts.tokens[i // g, i % g, : rollouts.lengths[i // g, i % g]]
            for i in index
        ]
        batch, plan = pack_sequences(
            prompts,
            responses,
            self.shape,
            num_micro=self.num_micro,
            response_width=rollouts.width,
            group_ids=np.arange(len(index)) // g,
            loss_rows=loss_rows[index],
            prompt_ids=index // g,
        )
        return Minibatch(index, batch, plan)


def score_sequences(
    scorer: Callable[[Any, TrainBatch, Any], jax.Array],
    params: Any,
    minibatches: list[Minibatch],
    batch_sharding: BatchSharding,
) -> np.ndarray:
    """Runs a forward pass over mini-batches; [B, T] in the order of the rollouts.

    Rows of the rollouts that are in no mini-batch are zero.

    All are started before the first result is read, so that the device does not wait.
    """
    started = [
        scorer(params, batch_sharding.put_micro_batches(m.batch), m.plan.live)
        for m in minibatches
    ]
    total = 1 + max(int(m.index.max()) for m in minibatches)
    out = np.zeros((total, started[0].shape[-1]), np.float32)
    for m, placed in zip(minibatches, started, strict=True):
        out[m.index] = m.plan.collect(placed)
    return out
