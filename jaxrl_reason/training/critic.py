"""The critic of an RL run: a value model with an optimiser of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Transformer, ValueModel
from jaxrl_reason.training.forward import critic_values
from jaxrl_reason.training.method import Method
from jaxrl_reason.training.metrics import Pairs, Row, add_metrics
from jaxrl_reason.training.minibatches import Minibatch, MinibatchPlan, Placement
from jaxrl_reason.training.objectives import critic_objective
from jaxrl_reason.training.state import (
    OptimizerSettings,
    TrainState,
    placed_state,
    restart_optimizer,
)
from jaxrl_reason.training.update import make_scorer, make_update


@dataclass(frozen=True)
class CriticParts:
    """The compiled pieces of a critic; its mini-batches need not be the policy's."""

    plan: MinibatchPlan
    optimizer: OptimizerSettings
    values: Callable[..., jax.Array]
    update: Callable[..., tuple[TrainState, Any]]


def build_critic(
    model: Transformer,
    method: Method,
    plan: MinibatchPlan,
    optimizer: OptimizerSettings,
) -> CriticParts | None:
    """The critic that the method asks for, if it does; nothing is compiled yet."""
    if method.value_loss is None:
        return None
    critic = ValueModel(model.config, model.constrain)
    return CriticParts(
        plan=plan,
        optimizer=optimizer,
        values=make_scorer(partial(critic_values, critic)),
        update=make_update(
            critic_objective(critic, method),
            optimizer.build(),
            num_groups=plan.groups_per_minibatch,
        ),
    )


def start_critic(
    parts: CriticParts, policy: TrainState, place: Placement
) -> TrainState:
    """A critic at update 0: the policy's transformer under a head of zeros."""
    optimizer = parts.optimizer.build()
    backbone = restart_optimizer(policy, optimizer).params
    width = backbone["embedding"].shape[1]
    head = place.whole(jnp.zeros((width,), jnp.float32))
    body = {name: x for name, x in backbone.items() if name != "head"}
    return placed_state({"backbone": body, "value_head": head}, optimizer)


def update_critic(
    parts: CriticParts,
    critic: TrainState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
    place: Placement,
) -> tuple[TrainState, Pairs]:
    """One optimiser step a mini-batch towards `fields["returns"]`.

    Args:
      parts: of the critic.
      critic: donated.
      minibatches: of the critic's plan.
      fields: returns and old_values, [B, T].
      place: puts batches on the mesh.

    Returns:
      The state and the metrics, their names beginning with "critic_".
    """
    pairs: Pairs = {}
    for minibatch in minibatches:
        full = minibatch.with_fields(**fields)
        critic, metrics = parts.update(critic, place.rows(full.batch), full.plan.live)
        named = {f"critic_{name}": pair for name, pair in metrics.items()}
        pairs = add_metrics(pairs, named)
    return critic, pairs


def explained_variance(
    values: np.ndarray, returns: np.ndarray, mask: np.ndarray
) -> Row:
    """1 - var(returns - values) / var(returns) over the tokens of the mask.

    1 is a perfect critic, 0 one that knows no more than the mean. Absent where all
    returns are the same.

    >>> import numpy as np
    >>> explained_variance(np.zeros(3), np.arange(3.0), np.ones(3, bool))
    {'explained_variance': 0.0}
    """
    wanted = returns[mask].astype(np.float64)
    spread = wanted.var() if wanted.size else 0.0
    if spread < 1e-12:
        return {}
    missed = (wanted - values[mask]).var()
    return {"explained_variance": float(1.0 - missed / spread)}
