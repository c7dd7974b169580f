"""What an update reads of a teacher: hidden states, and the divergence made of them.

A teacher's distributions of all tokens would be [B, T, V]. Kept are its hidden states,
in the columns of the policy's packed rows; the logits of both models are made together,
a chunk of tokens at a time.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxrl_reason.learner.forward import head_logprobs, unpack
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.update import micro_batch
from jaxrl_reason.losses import chunked_jsd
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.sharding import Constrainer

Params = Any


def hidden_states(model: Transformer, params: Params, batch: TrainBatch) -> jax.Array:
    """[M, S, D] of packed rows, after the final norm."""
    return model.apply(
        {"params": params},
        batch.tokens,
        batch.positions,
        batch.segment_ids,
        batch.branch_ids,
    )


def make_hidden_scorer(
    model: Transformer,
) -> Callable[[Params, TrainBatch, Any], jax.Array]:
    """A jitted forward pass (params, batch [K, ...], num_active) -> [K, M, S, D].

    Micro-batches past `num_active` are zero.
    """

    def run(params: Params, batch: TrainBatch, num_active: jax.Array) -> jax.Array:
        def one(k: jax.Array, out: jax.Array) -> jax.Array:
            hidden = hidden_states(model, params, micro_batch(batch, k))
            return jax.lax.dynamic_update_index_in_dim(out, hidden, k, 0)

        shape = (*batch.tokens.shape, model.config.hidden_size)
        empty = jnp.zeros(shape, jnp.dtype(model.config.dtype))
        return jax.lax.fori_loop(0, num_active, one, empty)

    return jax.jit(run)


def divergence_forward(
    model: Transformer, teacher: Transformer, *, beta: float, temperature: float
) -> Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]:
    """The policy's pass where a teacher's distributions are read too.

    Args:
      model: of the policy.
      teacher: of the teacher, for its head.
      beta: of `generalized_jsd`.
      temperature: of both distributions.

    Returns:
      f(params, batch, frozen) -> log-probs [Q, T], and by name `entropy` and
      `divergence`, [Q, T] each; the gradient goes through all of them. `teacher_hidden`
      [M, S, E] of the batch stands in the columns that predict the same tokens in the
      policy's rows; `frozen["teacher"]` are the teacher's parameters.
    """

    def forward(
        params: Params, batch: TrainBatch, frozen: Mapping[str, Any]
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        hidden, head = hidden_states(model, params, batch), unembedding(model, params)
        targets = jnp.roll(batch.tokens, -1, axis=1)  # [M, S] the next token
        logprobs, entropy = head_logprobs(model.constrain)(  # [M, S] each
            hidden, head, targets, temperature=temperature
        )
        divergence = head_jsd(model.constrain, beta=beta, temperature=temperature)(
            hidden,
            head,
            batch["teacher_hidden"],
            unembedding(teacher, frozen["teacher"]),
        )  # [M, S]
        return unpack(logprobs, batch), {
            "entropy": unpack(entropy, batch),
            "divergence": unpack(divergence, batch),
        }

    return forward


def head_jsd(constrain: object, **settings: Any) -> Callable[..., jax.Array]:
    """`chunked_jsd` for a model's constrainer: each device loops over its own tokens.

    Both heads are gathered whole, once before the loop, and the gradient of the
    policy's is summed over the devices once after it (as in `head_logprobs`).

    Args:
      constrain: of a `Transformer`; anything but a `Constrainer` means no mesh.
      **settings: of `chunked_jsd`.
    """
    run = partial(chunked_jsd, **settings)
    if not isinstance(constrain, Constrainer):
        return run
    mesh, rules = constrain.mesh, constrain.rules
    of_tokens = rules.mesh_axes("batch") + rules.mesh_axes("sequence")
    if all(mesh.shape[axis] == 1 for axis in of_tokens):
        return run
    rows, whole = rules.spec(("batch", "sequence")), PartitionSpec()
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(rows, whole, rows, whole),
        out_specs=rows,
        check_vma=False,
    )
