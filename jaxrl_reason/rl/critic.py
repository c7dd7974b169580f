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
from jaxrl_reason.losses import explained_variance
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


def critic_metrics(values: np.ndarray, returns: np.ndarray, mask: np.ndarray) -> Row:
    """How much of the variance of the returns the critic foresees.

    `losses.explained_variance` over the tokens of the mask; absent where all returns
    are the same.

    >>> import numpy as np
    >>> returns, mask = np.array([[0.0, 1.0, 2.0]], np.float32), np.ones((1, 3), bool)
    >>> critic_metrics(np.zeros_like(returns), returns, mask)
    {'critic/explained_variance': 0.0}
    """
    wanted = returns[mask]
    if wanted.size == 0 or wanted.min() == wanted.max():
        return {}
    explained = explained_variance(values, returns, mask)
    return {"critic/explained_variance": float(explained)}
