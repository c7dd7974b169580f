"""Training low-rank factors on a frozen base: what the loop needs for it.

The policy's `TrainState` holds the factors alone, so gradients, moments, checkpoints
and donated buffers are theirs. The base is an argument of every compiled function that
reads it; it is never copied and never a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxrl_reason.losses import Counts
from jaxrl_reason.models import (
    LoraSettings,
    Transformer,
    abstract_lora,
    init_lora,
    lora_axes,
    with_lora,
)
from jaxrl_reason.sharding import tree_shardings
from jaxrl_reason.training.batch import TrainBatch
from jaxrl_reason.training.method import Method
from jaxrl_reason.training.minibatches import Placement
from jaxrl_reason.training.state import (
    OptimizerSettings,
    TrainState,
    placed_state,
    restart_optimizer,
)
from jaxrl_reason.training.update import Metrics, Objective

Params = Any


@dataclass(frozen=True)
class LoraParts:
    """The factors' settings, and what makes fresh ones on the mesh."""

    settings: LoraSettings
    start: Callable[[], Params]


def build_lora(
    model: Transformer,
    method: Method,
    settings: LoraSettings | None,
    place: Placement,
    seed: int,
) -> LoraParts | None:
    """The parts of a run with factors, if it is to have them; nothing is compiled yet.

    Raises:
      ValueError: the method trains another model beside the policy or combines
        gradients, the rank does not fit the model, or the mesh does not divide it.
    """
    if settings is None:
        return None
    for name in ("value_loss", "implicit_reward_loss", "combine"):
        if getattr(method, name) is not None:
            raise ValueError(
                f"LoRA is for methods that train nothing but the policy, with one "
                f"objective, got {name} in {method.name!r}"
            )
    shapes, axes = abstract_lora(model, settings), lora_axes(model, settings)
    start = jax.jit(
        lambda key: init_lora(model, settings, key),
        out_shardings=tree_shardings(place.mesh, place.rules, axes, shapes),
    )
    return LoraParts(settings, lambda: start(jax.random.key(seed)))


def start_policy(
    lora: LoraParts | None, policy: TrainState, optimizer: OptimizerSettings
) -> TrainState:
    """What a run trains, at update 0: the policy, copied, or fresh factors."""
    if lora is None:
        return restart_optimizer(policy, optimizer.build())
    return placed_state(lora.start(), optimizer.build())


def lora_objective(objective: Objective, settings: LoraSettings) -> Objective:
    """The objective as one of the factors alone, the base given by keyword.

    `make_update` hands it on from `update(state, batch, live, base=...)`: an argument
    of the compiled step, neither differentiated nor donated.
    """

    def of_factors(
        params: Params, batch: TrainBatch, counts: Counts, *, base: Params, **named: Any
    ) -> tuple[jax.Array, Metrics]:
        return objective(with_lora(base, params, settings), batch, counts, **named)

    return of_factors
