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

from jaxrl_reason.learner.forward import head_logprobs, hidden_states, unpack
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.losses import chunked_jsd
from jaxrl_reason.models import Transformer, unembedding
from jaxrl_reason.sharding import Constrainer

Params = Any


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
        of_head = head_logprobs(model.constrain, model.config.matmul_dtype)
        logprobs, entropy = of_head(  # [M, S] each
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
    run: Callable[..., jax.Array] = partial(chunked_jsd, **settings)
    if not isinstance(constrain, Constrainer):
        return run
    mesh, rules = constrain.mesh, constrain.rules
    of_tokens = rules.mesh_axes("batch") + rules.mesh_axes("sequence")
    if all(mesh.shape[axis] == 1 for axis in of_tokens):
        return run

    def split(hidden: jax.Array, *others: jax.Array) -> jax.Array:
        rows = constrain.sharding(("batch", "sequence"), hidden.shape[:2]).spec
        whole = PartitionSpec()
        return jax.shard_map(
            run,
            mesh=mesh,
            in_specs=(rows, whole, rows, whole),
            out_specs=rows,
            check_vma=False,
        )(hidden, *others)

    return split
