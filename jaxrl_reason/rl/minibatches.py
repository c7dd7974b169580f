"""Mini-batches of whole groups, packed, and the optimiser steps of one iteration."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.forward import policy_logprobs
from jaxrl_reason.learner.lora_training import lora_objective
from jaxrl_reason.learner.multi_objective import (
    advantage_objectives,
    make_multi_objective_update,
)
from jaxrl_reason.learner.packing import (
    Packing,
    PackingShape,
    TrainBatch,
    pack_sequences,
)
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import (
    Metrics,
    Objective,
    make_update,
    minibatch_counts,
)
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import LoraSettings, Transformer
from jaxrl_reason.rl.components import PolicyForward
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Pairs
from jaxrl_reason.sharding import BatchSharding

Params = Any


@dataclass(frozen=True)
class Minibatch:
    """The packed sequences of one optimiser step, and their origin.

    Attributes:
      index: [N] rows of the [B, T] arrays.
      batch: packed; a leading axis of micro-batches.
      plan: the position of each sequence in the packed batch.
    """

    index: np.ndarray
    batch: TrainBatch
    plan: Packing


@dataclass(frozen=True)
class MinibatchPlan:
    """Static shapes of a step's mini-batches.

    Attributes:
      num_minibatches: U.
      groups_per_minibatch: P / U; group ids are 0 .. P/U - 1 inside each.
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

        Best fit leaves at most one row with fewer sequences than a row always holds, so
        this number of rows suffices for any lengths.
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

    def pack(
        self,
        rollouts: Rollouts,
        groups: Iterable[np.ndarray],
        loss_rows: np.ndarray,
    ) -> list[Minibatch]:
        """Packs mini-batches of at most `groups_per_minibatch` groups each.

        Args:
          rollouts: P groups.
          groups: the group numbers of each mini-batch.
          loss_rows: [B] bool, False where a response does not count in the loss.
        """
        g, t = rollouts.tokens.shape[1:]
        lengths, tokens = rollouts.lengths.reshape(-1), rollouts.tokens.reshape(-1, t)
        packed = []
        for own in groups:
            index = (own[:, None] * g + np.arange(g)).reshape(-1)  # [N] rows of [B]
            prompts = [
                rollouts.prompt_tokens[p, : rollouts.prompt_lengths[p]]
                for p in index // g
            ]
            batch, plan = pack_sequences(
                prompts,
                [tokens[i, : lengths[i]] for i in index],
                self.shape,
                num_micro=self.num_micro,
                response_width=t,
                group_ids=np.arange(len(index)) // g,
                loss_rows=loss_rows[index],
                prompt_ids=index // g,
            )
            packed.append(Minibatch(index, batch, plan))
        return packed


@dataclass(frozen=True)
class RolloutBatch:
    """The rollouts of a step, split into the policy's mini-batches.

    Attributes:
      rollouts: P groups.
      loss_rows: [B] bool, False where a response does not count in the loss.
      minibatches: of the policy.
      rng: the generator that drew their order, for components with other mini-batches.
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
    more_inputs: Callable[[TrainState, TrainBatch, int], Mapping[str, Any]]
    | None = None,
    **given: Any,
) -> tuple[TrainState, Pairs]:
    """One optimiser step per mini-batch, of a policy, a critic or a reward model.

    Args:
      update: (state, batch, num_active, **given) -> (state, metrics), of
        `make_update`.
      state: the trained state; donated.
      minibatches: packed sequences.
      inputs: arrays [B, ...] of the whole batch that the objective reads.
      batch_sharding: places batches on the mesh.
      more_inputs: f(state, batch, mini-batch number), for inputs that need the current
        state.
      **given: keyword arguments of each update.

    Returns:
      The state and the summed metrics of all updates.
    """
    found: list[Pairs] = []
    for i, m in enumerate(minibatches):
        own = {name: m.plan.place(np.asarray(x)[m.index]) for name, x in inputs.items()}
        batch = batch_sharding.put_batch(replace(m.batch, inputs=own), axis=1)
        if more_inputs is not None and (more := more_inputs(state, batch, i)):
            batch = batch_sharding.put_batch(batch.with_inputs(**more), axis=1)
        state, metrics = update(state, batch, m.plan.num_active, **given)
        found.append(metrics)
    return state, jax.tree.map(lambda *xs: sum(xs), *found)


def score_sequences(
    scorer: Callable[[Any, TrainBatch, Any], jax.Array],
    params: Any,
    minibatches: list[Minibatch],
    batch_sharding: BatchSharding,
) -> np.ndarray:
    """Forward passes over mini-batches: [B, T] in the order of the rollouts.

    Rows of the rollouts that are in no mini-batch are zero.

    All passes are dispatched before the first result is read, so that the device does
    not wait.
    """
    started = [
        scorer(params, batch_sharding.put_batch(m.batch, axis=1), m.plan.num_active)
        for m in minibatches
    ]
    total = 1 + max(int(m.index.max()) for m in minibatches)
    out = np.zeros((total, started[0].shape[-1]), np.float32)
    for m, placed in zip(minibatches, started, strict=True):
        out[m.index] = batch_sharding.fetch(placed)[m.plan.micro, m.plan.slot]
    return out


def build_update(
    model: Transformer,
    method: Method,
    optimizer: OptimizerSettings,
    *,
    temperature: float,
    num_groups: int,
    lora: LoraSettings | None = None,
    forward: PolicyForward | None = None,
) -> Callable[..., tuple[TrainState, Any]]:
    """The policy's jitted step, for one objective or several."""
    objective = policy_objective(
        model, method, temperature=temperature, num_groups=num_groups, forward=forward
    )
    if lora is not None:
        objective = lora_objective(objective, lora)
    of_minibatch = None
    if "correct" in method.loss_inputs:
        of_minibatch = positive_counts(num_groups)
    if method.gradients is None:
        return make_update(
            objective,
            optimizer.build(),
            num_groups=num_groups,
            of_minibatch=of_minibatch,
            in_place=lora is None and forward is None,
        )
    return make_multi_objective_update(
        advantage_objectives(objective, method.gradients.num_objectives),
        method.gradients.combine,
        optimizer.build(),
        num_groups=num_groups,
        of_minibatch=of_minibatch,
    )


def policy_objective(
    model: Transformer,
    method: Method,
    *,
    temperature: float,
    num_groups: int,
    forward: PolicyForward | None = None,
) -> Objective:
    """The method's policy loss on a packed micro-batch of M rows, C slots each.

    `forward` of a component takes the place of `policy_logprobs`; it alone reads the
    parameters `frozen`.
    """
    names = method.all_loss_inputs

    def objective(
        params: Params,
        batch: TrainBatch,
        counts: Counts,
        frozen: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> tuple[jax.Array, Metrics]:
        found: Mapping[str, jax.Array]  # [Q, T] each
        if forward is None:
            logprobs, entropy = policy_logprobs(model, params, batch, temperature)
            found = {"entropy": entropy}
        else:
            logprobs, found = forward(params, batch, frozen or {})
        inputs: dict[str, Any] = {}
        for name in names:
            if name == "group_ids":
                inputs |= {name: batch.group_ids, "num_groups": num_groups}
            elif name in found:
                inputs[name] = found[name]  # differentiable
            else:
                inputs[name] = batch[name]  # [Q, T] or [Q]
        return method.loss(
            logprobs,
            batch.inputs["old_logprobs"],
            batch.inputs["advantages"],
            batch.mask,
            counts,
            **inputs,
            **given,
        )

    return objective


def positive_counts(num_groups: int) -> Callable[[TrainBatch], dict[str, Any]]:
    """f(mini-batch) -> `positive_counts`, the counts of its right responses."""

    def of_minibatch(batch: TrainBatch) -> dict[str, Any]:
        right = replace(batch, mask=batch.mask & batch["correct"][..., None])
        return {"positive_counts": minibatch_counts(right, num_groups)}

    return of_minibatch
