"""A model's parameters as decoding reads them: sliced into layers, in one type."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models.params import Params
from jaxrl_reason.models.rope import RopeTable, rope_table
from jaxrl_reason.models.transformer import Transformer
from jaxrl_reason.sharding import pad_vocab


@flax.struct.dataclass
class DecodeParams:
    """What every step reads, made once before the loop.

    Slicing parameters into layers inside a loop copies them, and cosines made inside it
    are made again for every head.

    Attributes:
      layers: L trees of one block's parameters.
      embedding: [V, D].
      head: [D, V], or None where the embedding is the head.
      final_norm: the last norm's parameters.
      rope: cosines and sines of every response column, each [T, P, 1, H/2].
      vocab_size: static, V less the padding that a mesh may ask for.
    """

    layers: tuple[Params, ...]
    embedding: jax.Array
    head: jax.Array | None
    final_norm: Params
    rope: RopeTable
    vocab_size: int = flax.struct.field(pytree_node=False)


def decode_params(
    model: Transformer, params: Params, prompt_lengths: jax.Array, size: int
) -> DecodeParams:
    """Slice a model's parameters for `decode_step`, in the compute type.

    Args:
      model: the transformer.
      params: its parameters.
      prompt_lengths: [P] tokens of each prompt.
      size: response columns T.
    """
    c = model.config
    dtype = jnp.dtype(c.dtype)
    layers = tuple(
        _one_layer(params["layers"], layer, dtype) for layer in range(c.num_layers)
    )
    positions = jnp.arange(size)[:, None] + prompt_lengths[None]  # [T, P]
    rope = rope_table(positions[..., None], c.head_dim, c.rope_theta, c.rope_scaling)
    embedding, head = params["embedding"].astype(dtype), None  # [V, D]
    if c.tie_embeddings:
        embedding = pad_vocab(model.constrain, embedding, ("vocab", "embed"))
    else:
        head = params["head"].astype(dtype)  # [D, V]
        head = pad_vocab(model.constrain, head, ("embed", "vocab"))
    return DecodeParams(
        layers, embedding, head, params["final_norm"], rope, c.vocab_size
    )


# One program for all layers: in one program of its own each, slicing a model of thirty
# layers takes longer to compile than the step that reads them.
@partial(jax.jit, static_argnums=2)
def _one_layer(stacked: Params, layer: int, dtype: np.dtype) -> Params:
    def slice_layer(x: jax.Array) -> jax.Array:
        x = jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)
        return x.astype(dtype)

    return jax.tree.map(slice_layer, stacked)


def decode_logits(params: DecodeParams, hidden: jax.Array) -> jax.Array:
    """Logits [B, V] float32 of hidden states [B, D]; -inf where V has padding."""
    # A tied head is transposed inside the product: as an array of its own it would be
    # another copy of the largest parameter.
    if params.head is None:
        equation, head = "bd,vd->bv", params.embedding
    else:
        equation, head = "bd,dv->bv", params.head
    logits = jnp.einsum(equation, hidden, head, preferred_element_type=jnp.float32)
    if logits.shape[1] == params.vocab_size:
        return logits
    columns = jnp.arange(logits.shape[1])[None]  # [1, V]
    return jnp.where(columns < params.vocab_size, logits, -jnp.inf)
