"""Objectives: a model, a batch and a loss function joined for `make_update`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.learner.forward import critic_values, policy_logprobs, sequences
from jaxrl_reason.learner.train_batch import TrainBatch
from jaxrl_reason.learner.update import Metrics, Objective, minibatch_counts
from jaxrl_reason.losses import Counts, token_mean
from jaxrl_reason.models import Transformer, ValueModel
from jaxrl_reason.rl.method import Method

Params = Any


def policy_objective(
    model: Transformer, method: Method, *, temperature: float, num_groups: int
) -> Objective:
    """The method's policy loss on a packed micro-batch."""

    def objective(
        params: Params, batch: TrainBatch, counts: Counts, **named: Any
    ) -> tuple[jax.Array, Metrics]:
        logprobs, entropy = policy_logprobs(model, params, batch, temperature)
        extra: dict[str, Any] = {
            name: entropy if name == "entropy" else sequences(getattr(batch, name))
            for name in method.loss_inputs
        }
        if "group_ids" in extra:
            extra["num_groups"] = num_groups
        return method.loss(
            logprobs,
            sequences(batch.old_logprobs),
            sequences(batch.advantages),
            sequences(batch.mask),
            counts,
            **extra,
            **named,
        )

    return objective


def minibatch_inputs(
    method: Method, *, num_groups: int
) -> Callable[[TrainBatch], dict[str, Any]]:
    """What the method's loss is handed about the whole mini-batch, besides counts.

    With `correct` among its inputs: `positive_counts`, the counts of right responses.
    """

    def inputs(batch: TrainBatch) -> dict[str, Any]:
        if "correct" not in method.loss_inputs:
            return {}
        assert batch.correct is not None  # the loop fills it
        right = replace(batch, mask=batch.mask & batch.correct[..., None])
        return {"positive_counts": minibatch_counts(right, num_groups)}

    return inputs


def token_selector(
    choose: Callable[..., jax.Array],
) -> Callable[[jax.Array, TrainBatch, jax.Array], jax.Array]:
    """A jitted (logprobs, batch [K, ...], key) -> [K, M, C, T] of `Method.selected`."""

    def select(logprobs: jax.Array, batch: TrainBatch, key: jax.Array) -> jax.Array:
        shape = batch.mask.shape
        fields = (logprobs, batch.old_logprobs, batch.advantages, batch.mask)
        flat = [jnp.asarray(x).reshape(-1, shape[-1]) for x in fields]
        return choose(*flat, key).reshape(shape)

    return jax.jit(select)


def critic_objective(model: ValueModel, method: Method) -> Objective:
    """The method's value loss, averaged over the tokens of the mini-batch."""
    value_loss = method.value_loss
    if value_loss is None:
        raise ValueError(f"a critic needs a value_loss, got none in {method.name!r}")

    def objective(
        params: Params, batch: TrainBatch, counts: Counts
    ) -> tuple[jax.Array, Metrics]:
        mask = sequences(batch.mask)
        values = critic_values(model, params, batch)
        per_token = value_loss(
            values, sequences(batch.old_values), sequences(batch.returns), mask
        )
        return token_mean(per_token, mask, counts), {}

    return objective
