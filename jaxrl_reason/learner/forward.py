"""From packed rows to one row of scalars a sequence: what the losses are given."""

from typing import Any

import jax
import jax.numpy as jnp
from chex import Array

from jaxrl_reason.learner.sharded_head import head_logprobs
from jaxrl_reason.learner.train_batch import TrainBatch
from jaxrl_reason.models import Transformer, ValueModel, unembedding

Params = Any


def model_inputs(batch: TrainBatch) -> tuple[Array | None, ...]:
    """What a model is called with to read packed rows."""
    return batch.tokens, batch.positions, batch.segment_ids, batch.branch_ids


def unpack(per_column: jax.Array, batch: TrainBatch) -> jax.Array:
    """Gathers [M, S] scalars of packed rows into response order, [M * C, T].

    Column `starts + t` of a row holds what belongs to response token t. The gather
    stays inside a row, so rows may lie on different devices. Entries outside the mask
    hold whatever stood in the row.
    """
    m, c, t = batch.mask.shape
    columns = batch.starts[..., None] + jnp.arange(t)[None, None, :]
    columns = jnp.minimum(columns, per_column.shape[1] - 1)
    return jnp.take_along_axis(per_column, columns.reshape(m, c * t), axis=1).reshape(
        m * c, t
    )


def sequences(x: Array) -> jax.Array:
    """[M, C, ...] -> [M * C, ...]: slots as the B axis of the losses."""
    return jnp.asarray(x).reshape((-1,) + x.shape[2:])


def policy_logprobs(
    model: Transformer, params: Params, batch: TrainBatch, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies of the response tokens, both [M * C, T] float32.

    Of the tempered distribution, as the sampler reports them; logits are never held
    for more than a chunk of tokens, and a head that the model's mesh splits is gathered
    once.
    """
    hidden = model.apply({"params": params}, *model_inputs(batch))
    targets = jnp.roll(batch.tokens, -1, axis=1)
    logprobs, entropy = head_logprobs(model.constrain)(
        hidden, unembedding(model, params), targets, temperature=temperature
    )
    return unpack(logprobs, batch), unpack(entropy, batch)


def critic_values(model: ValueModel, params: Params, batch: TrainBatch) -> jax.Array:
    """Values of the states before each response token, [M * C, T] float32."""
    values = model.apply({"params": params}, *model_inputs(batch))
    return unpack(values, batch)
