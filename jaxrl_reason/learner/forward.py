"""From packed rows to one row of scalars per sequence, the inputs of the losses.

On a mesh the output head is gathered once, not once per chunk of tokens. Left to the
compiler, a loop over chunks gathers a head sharded along D in every iteration, and sums
its gradient over the devices in every iteration. Here each device gathers the head
before its loop and accumulates its own gradient inside it; one reduce-scatter after the
loop, the transpose of the gather, gives every device its part.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxrl_reason.learner.head_parts import logprobs_by_parts, number_of_parts
from jaxrl_reason.learner.narrow_head import narrow_logprobs
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import Transformer, ValueModel, unembedding
from jaxrl_reason.sharding import Constrainer, pad_vocab

Params = Any
Logprobs = Callable[..., tuple[jax.Array, jax.Array]]


def unpack(per_column: jax.Array, batch: TrainBatch) -> jax.Array:
    """Gathers [M, S] scalars of packed rows into response order, [Q, T].

    Column `starts + t` of a row belongs to response token t. The gather stays inside a
    row, so rows may be on different devices. Entries outside the mask are arbitrary
    values of the row.
    """
    (m, s), (q, t) = per_column.shape, batch.mask.shape
    columns = batch.starts.reshape(m, -1, 1) + jnp.arange(t)[None, None, :]  # [M, C, T]
    columns = jnp.minimum(columns, s - 1).reshape(m, -1)
    return jnp.take_along_axis(per_column, columns, axis=1).reshape(q, t)


def policy_logprobs(
    model: Transformer, params: Params, batch: TrainBatch, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies of the response tokens, both [Q, T] float32.

    They are those of the distribution at the sampling temperature, as the sampler
    reports them; logits are never stored for more than a chunk of tokens, and a head
    that the mesh shards is gathered once.
    """
    hidden = hidden_states(model, params, batch)
    targets = jnp.roll(batch.tokens, -1, axis=1)  # [M, S] the token after each column
    of_head = head_logprobs(model.constrain, model.config.matmul_dtype)
    logprobs, entropy = of_head(  # [M, S] each
        hidden, unembedding(model, params), targets, temperature=temperature
    )
    return unpack(logprobs, batch), unpack(entropy, batch)


def logprobs_of(
    model: Transformer, temperature: float
) -> Callable[[Params, TrainBatch], jax.Array]:
    """f(params, batch) -> only the log-probs of `policy_logprobs`, [Q, T]."""

    def logprobs(params: Params, batch: TrainBatch) -> jax.Array:
        return policy_logprobs(model, params, batch, temperature)[0]

    return logprobs


def hidden_states(model: Transformer, params: Params, batch: TrainBatch) -> jax.Array:
    """[M, S, D] of packed rows, after the final norm."""
    return model.apply(
        {"params": params},
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        batch.branch_ids,
    )


def squared_probs_of(
    model: Transformer, temperature: float
) -> Callable[[Params, TrainBatch], jax.Array]:
    """f(params, batch) -> sum_v p_v^2 at each response token, [Q, T] float32.

    log sum_v p_v^2 = 2 log p(y) - log q(y), q the same logits at half the temperature
    and y any token, here the one that was sampled. So two log-probs are all it takes:
    no logits are held, and a head that a mesh splits is no case of its own.
    """

    def squared_probs(params: Params, batch: TrainBatch) -> jax.Array:
        hidden, head = hidden_states(model, params, batch), unembedding(model, params)
        targets = jnp.roll(batch.tokens, -1, axis=1)  # [M, S]
        of_head = head_logprobs(model.constrain, model.config.matmul_dtype)
        at, at_half = (
            of_head(hidden, head, targets, temperature=t)[0]
            for t in (temperature, temperature / 2)
        )
        return unpack(jnp.exp(2 * at - at_half), batch)

    return squared_probs


def critic_values(model: ValueModel, params: Params, batch: TrainBatch) -> jax.Array:
    """Values of the states before each response token, [Q, T] float32."""
    values = model.apply(  # [M, S]
        {"params": params},
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        batch.branch_ids,
    )
    return unpack(values, batch)


def head_logprobs(constrain: object, matmul_dtype: str | None = None) -> Logprobs:
    """`chunked_logprobs` for a model's constrainer, gathering a sharded head once.

    A sharded batch or sequence axis stays sharded: each device loops over chunks of its
    own tokens, so `chunk_size` counts the tokens of one device. A vocabulary that is
    sharded over other devices (`tensor`) stays sharded too, and only sums and maxima
    are communicated between them. A vocabulary that the mesh does not divide is padded
    first; the padding does not enter the softmax.

    Args:
      constrain: that of a `Transformer`; if it is not a `Constrainer`, there is no
        mesh.
      matmul_dtype: that of the model; a head that a mesh splits computes in float32.

    Returns:
      A function with the arguments and results of `chunked_logprobs`; it is that
      function itself, or the one for products in `matmul_dtype`, if no mesh shards the
      tokens or the vocabulary, or if one shards D over devices that all have the same
      tokens.
    """
    alone: Logprobs = chunked_logprobs
    if matmul_dtype is not None:
        alone = partial(narrow_logprobs, matmul_dtype)
    if not isinstance(constrain, Constrainer):
        return alone
    mesh, rules = constrain.mesh, constrain.rules
    of_tokens = rules.mesh_axes("batch") + rules.mesh_axes("sequence")
    of_width = rules.mesh_axes("embed")
    splits = any(mesh.shape[axis] > 1 for axis in of_tokens)
    gathered = splits and set(of_width) <= set(of_tokens)
    if rules.split(mesh, "vocab") == 1:
        return partial(_gathered, constrain) if gathered else alone
    whole = partial(_gathered, constrain) if gathered else chunked_logprobs
    return partial(_padded, whole, constrain)


def _padded(
    logprobs: Logprobs,
    constrain: Constrainer,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    **settings: Any,
) -> tuple[jax.Array, jax.Array]:
    vocab_size = unembed.shape[1]
    unembed = pad_vocab(constrain, unembed, ("embed", "vocab"))
    return logprobs(hidden, unembed, tokens, vocab_size=vocab_size, **settings)


def _gathered(
    constrain: Constrainer,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    **settings: Any,
) -> tuple[jax.Array, jax.Array]:
    """A large head in parts, another at once."""
    rules = constrain.rules
    parts = number_of_parts(unembed.shape[1] // constrain.split("vocab"))
    of_tokens = rules.mesh_axes("batch") + rules.mesh_axes("columns")
    by: Logprobs = partial(_gathered_once, constrain)
    if parts > 1 and not set(of_tokens) & set(rules.mesh_axes("vocab")):
        by = partial(logprobs_by_parts, constrain, parts)
    return by(hidden, unembed, tokens, **settings)


def _gathered_once(
    constrain: Constrainer,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    **settings: Any,
) -> tuple[jax.Array, jax.Array]:
    rules = constrain.rules
    even = hidden.shape[1] % constrain.split("sequence") == 0
    columns = "sequence" if even else None  # as the model splits them
    rows = rules.spec(("batch", columns))
    of_tokens = rules.mesh_axes("batch") + rules.mesh_axes(columns)
    head = rules.spec(("embed", "vocab"))
    inside, kept = (
        tuple(axis for axis in rules.mesh_axes("vocab") if (axis in of_tokens) == here)
        for here in (True, False)
    )

    def gather(part: jax.Array) -> jax.Array:
        for dimension, axes in enumerate((rules.mesh_axes("embed"), inside)):
            if axes:
                part = jax.lax.all_gather(part, axes, axis=dimension, tiled=True)
        return part

    # Without check_vma a copy's gradient is scattered first and the remainder is then
    # summed over further devices (`data`); and the loop may start from zeros, which
    # would otherwise count as replicated.
    local = partial(jax.shard_map, mesh=constrain.mesh, check_vma=False)
    # One copy per device, stacked along D.
    copies = local(gather, in_specs=head, out_specs=PartitionSpec(of_tokens, kept))
    # Axes that do not shard tokens, usually `tensor`, are left to the compiler.
    loop = local(
        partial(chunked_logprobs, **settings),
        in_specs=(rows, PartitionSpec(of_tokens), rows),
        out_specs=(rows, rows),
        axis_names=set(of_tokens),
    )
    # Between the sum of its gradient and what that is added to, which the compiler for
    # TPUs would else move out of the loop over micro-batches, and fails in (jax 0.10).
    unembed = jax.lax.optimization_barrier(unembed)
    return loop(hidden, copies(unembed), tokens)
