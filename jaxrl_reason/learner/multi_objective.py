"""One optimiser step for several objectives, whose K gradients are combined.

The gradients of each objective are first summed over the micro-batches, so conflicts
are those of whole mini-batches and do not depend on the micro-batches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl_reason.learner.objective_weights import Combine
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import TrainState, init_state
from jaxrl_reason.learner.update import (
    Metrics,
    Objective,
    accumulate_gradients,
    apply_gradients,
    minibatch_counts,
)
from jaxrl_reason.losses import (
    Counts,
    combine_gradients,
    uncertainty_weighting,
)
from jaxrl_reason.runs.metrics_log import add_metrics

Params = Any


def make_multi_objective_update(
    objectives: Sequence[Objective],
    combine: Combine,
    optimizer: optax.GradientTransformation,
    *,
    num_groups: int,
    of_minibatch: Callable[[TrainBatch], dict[str, Any]] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes a jitted step (state, batch, num_active) -> (state, metrics).

    As `make_update`, but every objective has its own forward and backward pass over the
    micro-batches. The state is donated.

    Args:
      objectives: K functions (params, batch, counts) -> (part of the loss, metrics).
      combine: (losses [K], gradients, update number) -> weights [K] of the gradients;
        arguments of the step after `num_active` are appended.
      optimizer: applied once, to the combined gradient.
      num_groups: of the mini-batch.
      of_minibatch: as in `make_update`, for every objective.

    Returns:
      The step. Metrics of the objectives are added up, which gives a mean over
      objectives. `loss` is the weighted sum; `loss_k` and `weight_k` belong to
      objective k; `gradient_conflict_fraction` is the fraction of pairs of gradients
      with a negative inner product.

    Raises:
      ValueError: there are no objectives.
    """
    _check_objectives(objectives)

    def update(
        state: TrainState, batch: TrainBatch, num_active: jax.Array, *given: Any
    ) -> tuple[TrainState, Metrics]:
        losses, metrics, gradients = objective_gradients(
            objectives, state.params, batch, num_active, num_groups, of_minibatch
        )
        weights = combine(losses, gradients, state.step, *given)
        state, more = apply_gradients(
            state, combine_gradients(gradients, weights), optimizer
        )
        return state, {**metrics, **more, **_weighed(losses, weights)}

    return jax.jit(update, donate_argnums=0)


def objective_gradients(
    objectives: Sequence[Objective],
    params: Params,
    batch: TrainBatch,
    num_active: jax.Array,
    num_groups: int,
    of_minibatch: Callable[[TrainBatch], dict[str, Any]] | None = None,
) -> tuple[jax.Array, Metrics, list[Params]]:
    """Losses [K], metrics and K gradients over the first `num_active` micro-batches."""
    counts = minibatch_counts(batch, num_groups)
    named = {} if of_minibatch is None else of_minibatch(batch)
    losses, gradients, metrics = [], [], dict[str, Any]()
    for objective in objectives:
        loss, found, grads = accumulate_gradients(
            partial(objective, **named), params, batch, num_active, counts
        )
        losses.append(loss)
        gradients.append(grads)
        metrics = add_metrics(metrics, found)
    return jnp.stack(losses), metrics | _conflicts(gradients), gradients


def make_uncertainty_update(
    objectives: Sequence[Objective],
    optimizer: optax.GradientTransformation,
    *,
    num_groups: int,
    of_minibatch: Callable[[TrainBatch], dict[str, Any]] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The update with learnt weights exp(-s_k) / 2 (arXiv 1705.07115).

    The parameters of the state are {"model": ..., "log_variances": [K]}, as
    `init_uncertainty_state` makes them; the optimiser trains both. For losses > 0, such
    as negative log-likelihoods, value and ranking losses: for a policy loss, which may
    be negative, s would decrease without bound. If a loss is not > 0, its s_k does not
    change, and the metric `positive_loss_fraction` is below 1.

    The variances are trained on the losses of the whole mini-batch: added to each
    micro-batch's loss, s_k / 2 would count once per micro-batch.

    Raises:
      ValueError: there are no objectives.
    """
    _check_objectives(objectives)

    def update(
        state: TrainState, batch: TrainBatch, num_active: jax.Array
    ) -> tuple[TrainState, Metrics]:
        losses, metrics, gradients = objective_gradients(
            objectives,
            state.params["model"],
            batch,
            num_active,
            num_groups,
            of_minibatch,
        )
        s = state.params["log_variances"]
        weights, slope = jax.grad(uncertainty_weighting, argnums=(0, 1))(losses, s)
        # With this comparison a nan does not count as a loss that is not positive.
        rest = losses <= 0
        grads = {
            "model": combine_gradients(gradients, weights),
            "log_variances": jnp.where(rest, 0.0, slope),
        }
        state, more = apply_gradients(state, grads, optimizer)
        positive = jnp.sum(~rest, dtype=jnp.float32)
        more["positive_loss_fraction"] = (positive, jnp.float32(len(objectives)))
        return state, {**metrics, **more, **_weighed(losses, weights)}

    return jax.jit(update, donate_argnums=0)


def init_uncertainty_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    num_objectives: int,
    *,
    log_variance: float = -0.5,
) -> TrainState:
    """A state at update 0 for parameters and K log-variances.

    LibMTL's start at -0.5.

    >>> state = init_uncertainty_state({"w": jnp.zeros(2)}, optax.sgd(0.1), 3)
    >>> state.params["log_variances"].tolist()
    [-0.5, -0.5, -0.5]
    """
    if num_objectives < 1:
        raise ValueError(f"num_objectives must be >= 1, got {num_objectives}")
    s = jnp.full((num_objectives,), log_variance, jnp.float32)
    return init_state({"model": params, "log_variances": s}, optimizer)


def advantage_objectives(objective: Objective, num_objectives: int) -> list[Objective]:
    """K objectives from one: the k-th uses `advantages[..., k]` of the batch.

    For K rewards whose advantages [..., K] are computed and centred separately: the
    policy loss of each is an objective.
    """

    def kth(
        k: int, params: Params, batch: TrainBatch, counts: Counts, **named: Any
    ) -> tuple[jax.Array, Metrics]:
        advantages = batch["advantages"]
        if advantages.ndim != batch.mask.ndim + 1:
            raise ValueError(
                f"advantages must have the mask's shape {batch.mask.shape} and one "
                f"axis more, got {advantages.shape}"
            )
        own = batch.with_inputs(advantages=advantages[..., k])
        return objective(params, own, counts, **named)

    if num_objectives < 1:
        raise ValueError(f"num_objectives must be >= 1, got {num_objectives}")
    return [partial(kth, k) for k in range(num_objectives)]


def component_advantages(
    estimator: Callable[..., jax.Array],
    components: jax.Array,
    mask: jax.Array,
    group_ids: jax.Array,
    *,
    num_groups: int,
) -> jax.Array:
    """Advantages of each reward separately: [B, T, K], zero outside the mask.

    Args:
      estimator: (rewards [B], group_ids [B], *, num_groups) -> [B], e.g.
        `grpo_advantages`.
      components: [B, K] rewards.
      mask: [B, T].
      group_ids: [B].
      num_groups: static.

    Example:
      >>> from jaxrl_reason.losses import dr_grpo_advantages
      >>> rewards = jnp.array([[1.0, 0.0], [0.0, 0.0]])
      >>> mask, ids = jnp.ones((2, 1)), jnp.zeros(2, int)
      >>> found = component_advantages(
      ...     dr_grpo_advantages, rewards, mask, ids, num_groups=1
      ... )
      >>> found[:, 0].tolist()
      [[0.5, 0.0], [-0.5, 0.0]]
    """
    each = jax.vmap(
        lambda rewards: estimator(rewards, group_ids, num_groups=num_groups),
        in_axes=1,
        out_axes=1,
    )
    inside = jnp.asarray(mask).astype(bool)
    return jnp.where(inside[:, :, None], each(components)[:, None, :], 0.0)


def _check_objectives(objectives: Sequence[Objective]) -> None:
    if not objectives:
        raise ValueError("objectives must hold at least one function, got none")


def _conflicts(gradients: Sequence[Params]) -> Metrics:
    """Pairs of gradients with a negative inner product, and all pairs."""
    places = [(i, j) for j in range(len(gradients)) for i in range(j)]
    against = [optax.tree.vdot(gradients[i], gradients[j]) < 0 for i, j in places]
    number = sum((x.astype(jnp.float32) for x in against), jnp.zeros(()))
    return {"gradient_conflict_fraction": (number, jnp.float32(len(places)))}


def _weighed(losses: jax.Array, weights: jax.Array) -> Metrics:
    one = jnp.ones(())
    metrics: Metrics = {"loss": (jnp.sum(weights * losses), one)}
    for k in range(losses.shape[0]):
        metrics |= {f"loss_{k}": (losses[k], one), f"weight_{k}": (weights[k], one)}
    return metrics
