"""Training low-rank factors on a frozen base.

The policy's `TrainState` holds only the factors, and so do gradients, moments,
checkpoints and donated buffers. The base is an argument of every compiled function that
reads it; it is never copied and never a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import (
    OptimizerSettings,
    TrainState,
    init_state,
)
from jaxrl_reason.learner.update import Metrics, Objective
from jaxrl_reason.losses import Counts
from jaxrl_reason.models import (
    LoraSettings,
    Transformer,
    abstract_lora,
    init_lora,
    lora_axes,
    with_lora,
)
from jaxrl_reason.sharding import BatchSharding, tree_shardings

Params = Any


@dataclass(frozen=True)
class LoraAdapter:
    """The factors' settings, and a function that initialises them on the mesh.

    Attributes:
      settings: rank and scale of the factors.
      start: initialises factors on the mesh.
    """

    settings: LoraSettings
    start: Callable[[], Params]


def build_lora(
    model: Transformer,
    settings: LoraSettings | None,
    batch_sharding: BatchSharding,
    seed: int,
) -> LoraAdapter | None:
    """The adapter of a run with LoRA; nothing is compiled yet.

    Raises:
      ValueError: the rank does not fit the model, or the mesh does not divide it.
    """
    if settings is None:
        return None
    shapes, axes = abstract_lora(model, settings), lora_axes(model, settings)
    start = jax.jit(
        lambda key: init_lora(model, settings, key),
        out_shardings=tree_shardings(
            batch_sharding.mesh, batch_sharding.rules, axes, shapes
        ),
    )
    return LoraAdapter(settings, lambda: start(jax.random.key(seed)))


def init_policy_state(
    lora: LoraAdapter | None, policy: TrainState, optimizer: OptimizerSettings
) -> TrainState:
    """The trained state at update 0: a copy of the policy, or new factors."""
    if lora is None:
        return init_state(policy.params, optimizer.build(), copy=True)
    return init_state(lora.start(), optimizer.build())


def lora_objective(objective: Objective, settings: LoraSettings) -> Objective:
    """The objective as a function of the factors, with the base as a keyword argument.

    `make_update` passes it on from `update(state, batch, num_active, base=...)`: an
    argument of the compiled step, neither differentiated nor donated.
    """

    def of_factors(
        params: Params, batch: TrainBatch, counts: Counts, *, base: Params, **named: Any
    ) -> tuple[jax.Array, Metrics]:
        return objective(with_lora(base, params, settings), batch, counts, **named)

    return of_factors
