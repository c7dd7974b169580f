"""The critic of an RL run: a value model with an optimiser of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrl_reason.learner.forward import critic_values
from jaxrl_reason.learner.state import (
    OptimizerSettings,
    TrainState,
    init_value_state,
)
from jaxrl_reason.learner.update import make_scorer, make_update
from jaxrl_reason.models import Transformer, ValueModel
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.minibatches import Minibatch, MinibatchPlan
from jaxrl_reason.rl.policy_objective import critic_objective
from jaxrl_reason.runs.metrics import Pairs, Row, add_metrics
from jaxrl_reason.sharding import BatchSharding


@dataclass(frozen=True)
class CriticLearner:
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
) -> CriticLearner | None:
    """The critic that the method asks for, if it does; nothing is compiled yet."""
    if method.value_loss is None:
        return None
    critic = ValueModel(model.config, model.constrain)
    return CriticLearner(
        plan=plan,
        optimizer=optimizer,
        values=make_scorer(partial(critic_values, critic)),
        update=make_update(
            critic_objective(critic, method),
            optimizer.build(),
            num_groups=plan.groups_per_minibatch,
        ),
    )


def init_critic_state(
    learner: CriticLearner, policy: TrainState, batch_sharding: BatchSharding
) -> TrainState:
    """A critic at update 0: the policy's transformer under a head of zeros."""
    return init_value_state(policy, learner.optimizer, batch_sharding)


def update_critic(
    learner: CriticLearner,
    critic: TrainState,
    minibatches: list[Minibatch],
    fields: dict[str, np.ndarray],
    batch_sharding: BatchSharding,
) -> tuple[TrainState, Pairs]:
    """One optimiser step a mini-batch towards `fields["returns"]`.

    Args:
      learner: of the critic.
      critic: donated.
      minibatches: of the critic's plan.
      fields: returns and old_values, [B, T].
      batch_sharding: puts batches on the mesh.

    Returns:
      The state and the metrics.
    """
    pairs: Pairs = {}
    for minibatch in minibatches:
        full = minibatch.with_fields(**fields)
        critic, metrics = learner.update(
            critic, batch_sharding.put_micro_batches(full.batch), full.plan.live
        )
        pairs = add_metrics(pairs, metrics)
    return critic, pairs


def explained_variance(
    values: np.ndarray, returns: np.ndarray, mask: np.ndarray
) -> Row:
    """1 - var(returns - values) / var(returns) over the tokens of the mask.

    1 is a perfect critic, 0 one that knows no more than the mean. Absent where all
    returns are the same.

    >>> import numpy as np
    >>> explained_variance(np.zeros(3), np.arange(3.0), np.ones(3, bool))
    {'critic/explained_variance': 0.0}
    """
    wanted = returns[mask].astype(np.float64)
    spread = wanted.var() if wanted.size else 0.0
    if spread < 1e-12:
        return {}
    missed = (wanted - values[mask]).var()
    return {"critic/explained_variance": float(1.0 - missed / spread)}
