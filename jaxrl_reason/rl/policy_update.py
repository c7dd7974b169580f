"""The policy's optimiser step: a model, packed sequences and a method's loss joined."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from jaxrl_reason.learner.forward import policy_logprobs, sequences
from jaxrl_reason.learner.lora_training import lora_objective
from jaxrl_reason.learner.multi_objective import (
    advantage_objectives,
    make_multi_objective_update,
)
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import OptimizerSettings, TrainState
from jaxrl_reason.learner.update import (
    Metrics,
    Objective,
    make_update,
    minibatch_counts,
)
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import LoraSettings, Transformer
from jaxrl_reason.rl.method import Method

Params = Any


def build_update(
    model: Transformer,
    method: Method,
    optimizer: OptimizerSettings,
    *,
    temperature: float,
    num_groups: int,
    lora: LoraSettings | None = None,
) -> Callable[..., tuple[TrainState, Any]]:
    """The policy's jitted step, of one objective or of several."""
    objective = policy_objective(
        model, method, temperature=temperature, num_groups=num_groups
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
        )
    return make_multi_objective_update(
        advantage_objectives(objective, method.gradients.num_objectives),
        method.gradients.combine,
        optimizer.build(),
        num_groups=num_groups,
        of_minibatch=of_minibatch,
    )


def policy_objective(
    model: Transformer, method: Method, *, temperature: float, num_groups: int
) -> Objective:
    """The method's policy loss on a packed micro-batch of M rows, C slots each."""
    names = [name for name in method.all_loss_inputs if name != "entropy"]

    def objective(
        params: Params, batch: TrainBatch, counts: Counts, **given: Any
    ) -> tuple[jax.Array, Metrics]:
        logprobs, entropy = policy_logprobs(model, params, batch, temperature)
        inputs: dict[str, Any] = {}
        if "entropy" in method.loss_inputs:
            inputs["entropy"] = entropy  # [M * C, T]
        for name in names:
            if name == "group_ids":
                inputs |= {name: sequences(batch.group_ids), "num_groups": num_groups}
            else:
                inputs[name] = sequences(batch[name])  # [M * C, T] or [M * C]
        return method.loss(
            logprobs,
            sequences(batch["old_logprobs"]),
            sequences(batch["advantages"]),
            sequences(batch.mask),
            counts,
            **inputs,
            **given,
        )

    return objective


def positive_counts(num_groups: int) -> Callable[[TrainBatch], dict[str, Any]]:
    """f(mini-batch) -> `positive_counts`: the counts of its right responses."""

    def of_minibatch(batch: TrainBatch) -> dict[str, Any]:
        right = replace(batch, mask=batch.mask & batch["correct"][..., None])
        return {"positive_counts": minibatch_counts(right, num_groups)}

    return of_minibatch
