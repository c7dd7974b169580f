"""Rollouts split into mini-batches of whole groups and packed for the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.packing import (
    Packing,
    PackingShape,
    TrainBatch,
    pack_inputs,
    pack_sequences,
)
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics import Pairs, add_metrics
from jaxrl_reason.sharding import BatchSharding


@dataclass(frozen=True)
class Minibatch:
    """One optimiser step's sequences: packed, and where they came from.

    Attributes:
      index: [N] rows of the [B, T] arrays.
      batch: packed; a leading axis of micro-batches.
      plan: where each sequence went.
    """

    index: np.ndarray
    batch: TrainBatch
    plan: Packing

    def with_inputs(self, **inputs: np.ndarray) -> "Minibatch":
        """Adds inputs given for the whole batch [B, ...]."""
        own = {name: np.asarray(x)[self.index] for name, x in inputs.items()}
        return replace(self, batch=pack_inputs(self.batch, self.plan, **own))


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
                f"per rollout, got {num_minibatches}"
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


@dataclass(frozen=True)
class RolloutBatch:
    """The rollouts of a step, split into the policy's mini-batches.

    Attributes:
      rollouts: P groups.
      loss_rows: [B] bool, False where a response does not count in the loss.
      minibatches: of the policy.
      rng: that drew their order, for whoever splits the rollouts otherwise.
    """

    rollouts: Rollouts
    loss_rows: np.ndarray
    minibatches: list[Minibatch]
    rng: np.random.Generator


def run_updates(
    update: Callable[..., tuple[TrainState, Any]],
    state: TrainState,
    minibatches: list[Minibatch],
    inputs: Mapping[str, np.ndarray],
    batch_sharding: BatchSharding,
    more_inputs: Callable[[TrainState, TrainBatch, Any, int], Mapping[str, Any]]
    | None = None,
    **given: Any,
) -> tuple[TrainState, Pairs]:
    """One optimiser step per mini-batch, of a policy, a critic or a reward model.

    Args:
      update: (state, batch, live, **given) -> (state, metrics), as `make_update` makes.
      state: donated.
      minibatches: packed sequences.
      inputs: arrays [B, ...] of the whole batch that the objective reads.
      batch_sharding: puts batches on the mesh.
      more_inputs: f(state, batch, live, number of the mini-batch), for inputs that
        need the state of now.
      **given: of each update.

    Returns:
      The state and the metrics of all updates, added up.
    """
    pairs: Pairs = {}
    for i, minibatch in enumerate(minibatches):
        full = minibatch.with_inputs(**inputs)
        batch = batch_sharding.put_micro_batches(full.batch)
        live = full.plan.live
        if more_inputs is not None and (more := more_inputs(state, batch, live, i)):
            batch = batch_sharding.put_micro_batches(batch.with_inputs(**more))
        state, metrics = update(state, batch, live, **given)
        pairs = add_metrics(pairs, metrics)
    return state, pairs


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
