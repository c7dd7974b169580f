"""One optimiser step over any number of micro-batches, compiled once.

The batch is allocated for the worst case and the loop runs over the active
micro-batches only: short responses cost less, and nothing is recompiled. The loss of a
micro-batch is its part of the mini-batch's loss (losses take the counts of the whole
mini-batch), so gradients are summed, never averaged.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.losses import Counts, batch_counts

Params = Any
Metrics = dict[str, tuple[jax.Array, jax.Array]]
# f(params, batch, counts, **of_minibatch)
Objective = Callable[..., tuple[jax.Array, Metrics]]


def micro_batch(batch: TrainBatch, k: jax.Array) -> TrainBatch:
    """Micro-batch k of a batch whose arrays have a leading axis [K]."""
    return jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, k, 0, keepdims=False), batch
    )


def minibatch_counts(batch: TrainBatch, num_groups: int) -> Counts:
    """Denominators over all micro-batches of a mini-batch."""
    width = batch.mask.shape[-1]
    return batch_counts(
        batch.mask.reshape(-1, width),  # [K * Q, T]
        batch.group_ids.reshape(-1),  # [K * Q]
        num_groups=num_groups,
    )


def accumulate_gradients(
    objective: Objective,
    params: Params,
    batch: TrainBatch,
    num_active: jax.Array,
    counts: Counts,
) -> tuple[jax.Array, Metrics, Params]:
    """Sums loss, metrics and gradients over the first `num_active` micro-batches."""
    grad_fn = jax.value_and_grad(objective, has_aux=True)

    def one(k: jax.Array) -> tuple[jax.Array, Metrics, Params]:
        (loss, metrics), grads = grad_fn(params, micro_batch(batch, k), counts)
        return loss, metrics, grads

    shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(
        0, num_active, lambda k, total: jax.tree.map(jnp.add, total, one(k)), zeros
    )


def accumulate_in_place(
    objective: Objective,
    params: Params,
    batch: TrainBatch,
    num_active: jax.Array,
    counts: Counts,
) -> tuple[jax.Array, Metrics, Params]:
    """The same sums, in one tree of gradients.

    The backward pass adds each array to it where it arises, layer by layer, so that no
    second tree for one micro-batch is ever held. Only for objectives that hand the
    parameters of all layers to the model as they are: JAX (0.10) confuses the gradients
    of a scan over some arrays that are parameters and some that were made of them.
    """

    def add(k: jax.Array, sums: Any) -> tuple[jax.Array, Metrics, Params]:
        *before, grads = sums
        own = micro_batch(batch, k)
        backward: Any  # takes references to what it adds to
        loss, backward, metrics = jax.vjp(
            lambda p: objective(p, own, counts), params, has_aux=True
        )
        held = jax.tree.map(jax.new_ref, grads)
        backward.with_refs(held)(jnp.ones_like(loss))
        loss, metrics = jax.tree.map(jnp.add, tuple(before), (loss, metrics))
        return loss, metrics, jax.tree.map(jax.freeze, held)

    first = micro_batch(batch, jnp.zeros((), jnp.int32))
    shapes = (*jax.eval_shape(objective, params, first, counts), params)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(0, num_active, add, zeros)


def apply_gradients(
    state: TrainState, grads: Params, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Metrics]:
    """One optimiser update; a gradient that is not finite leaves the state unchanged.

    It is checked before clipping, which would turn one inf into nan everywhere.
    """
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)

    def updated(state: TrainState, grads: Params) -> TrainState:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, state.step + 1)

    def by_number(finite: jax.Array, state: TrainState, grads: Params) -> TrainState:
        safe = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros_like(g)), grads)
        new = updated(state, safe)
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)

    def by_branch(finite: jax.Array, state: TrainState, grads: Params) -> TrainState:
        return jax.lax.cond(finite, updated, lambda state, _: state, state, grads)

    # A CPU takes twice as long to choose number by number, which reads and writes all
    # of them again; a TPU holds more for a branch (half a GB a device at 32B).
    kept = jax.lax.platform_dependent(
        finite, state, grads, cpu=by_branch, default=by_number
    )
    one, skipped = jnp.ones(()), 1.0 - finite.astype(jnp.float32)
    metrics = {
        "grad_norm": (jnp.where(finite, norm, 0.0), finite.astype(jnp.float32)),
        "skipped_update_fraction": (skipped, one),
    }
    return kept, metrics


def make_update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    num_groups: int,
    of_minibatch: Callable[[TrainBatch], dict[str, Any]] | None = None,
    in_place: bool = False,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes a jitted step (state, batch [K, ...], num_active) -> (state, metrics).

    The state is donated. Metrics are (total, count) pairs over the mini-batch. The
    objective gets by keyword the keyword arguments of the step and the results of
    `of_minibatch` for the whole batch. `in_place` saves a tree of gradients, for
    objectives that `accumulate_in_place` can take.
    """
    accumulate = accumulate_in_place if in_place else accumulate_gradients

    def update(
        state: TrainState, batch: TrainBatch, num_active: jax.Array, **given: jax.Array
    ) -> tuple[TrainState, Metrics]:
        counts = minibatch_counts(batch, num_groups)
        named = given if of_minibatch is None else {**given, **of_minibatch(batch)}
        loss, metrics, grads = accumulate(
            partial(objective, **named), state.params, batch, num_active, counts
        )
        state, more = apply_gradients(state, grads, optimizer)
        return state, {**metrics, **more, "loss": (loss, jnp.ones(()))}

    return jax.jit(update, donate_argnums=0)


def make_scorer(
    score: Callable[[Params, TrainBatch], jax.Array],
) -> Callable[[Params, TrainBatch, jax.Array], jax.Array]:
    """Makes a jitted forward pass (params, batch [K, ...], num_active) -> [K, ...].

    `score` gives an array for one micro-batch, such as log-probs [Q, T]; micro-batches
    past `num_active` are zero.
    """

    def run(params: Params, batch: TrainBatch, num_active: jax.Array) -> jax.Array:
        def one(k: jax.Array, out: jax.Array) -> jax.Array:
            x = score(params, micro_batch(batch, k))
            return jax.lax.dynamic_update_index_in_dim(out, x, k, 0)

        first = micro_batch(batch, jnp.zeros((), jnp.int32))
        shape = jax.eval_shape(score, params, first)
        empty = jnp.zeros((len(batch.mask), *shape.shape), shape.dtype)
        return jax.lax.fori_loop(0, num_active, one, empty)

    return jax.jit(run)
