"""Parameters of a model: initialised, described and read, from one declaration.

The declaration is in the modules: each array's shape, type, initialiser and logical
axes stand where it is used. Everything here derives from it.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models.attention import RopeTable, rope_table
from jaxrl_reason.models.layers import BY_OUTPUT, LARGE_MATRICES
from jaxrl_reason.models.transformer import Transformer, ValueModel
from jaxrl_reason.sharding import no_constraint, pad_vocab, stationary

Model = Transformer | ValueModel
# What `project` multiplies with.
MATRICES = frozenset({"query", "key", "value", "output", "gate", "up", "down"})
Params = dict[str, Any]


def _boxed(model: Model, key: jax.Array) -> Params:
    # Only one token, which no mesh divides, so its activations are not constrained.
    model = model.clone(constrain=no_constraint)
    dummy = jnp.zeros((1, 1), dtype=jnp.int32)
    return dict(model.init(key, dummy, dummy, dummy)["params"])


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.Partitioned)


def _unbox(tree: Any) -> Any:
    # Only the value: the caller places arrays on a mesh.
    return jax.tree.map(lambda box: box.value, tree, is_leaf=_is_box)


def init_params(model: Model, key: jax.Array) -> Params:
    """Initial parameters as a plain tree of dicts and arrays.

    Can be traced: under jit with out_shardings every array is created in its sharding.

    Args:
      model: a Transformer or ValueModel.
      key: a JAX key, consumed.

    Returns:
      Nested dicts; the arrays of all layers are stacked, [L, ...].

    >>> from jaxrl_reason.models import Transformer, TransformerConfig
    >>> config = TransformerConfig(
    ...     vocab_size=8, hidden_size=4, num_layers=2, num_heads=2, num_kv_heads=1,
    ...     head_dim=2, mlp_dim=8, context_length=16)
    >>> params = init_params(Transformer(config), jax.random.key(0))
    >>> params["layers"]["attention"]["key"].shape
    (2, 4, 1, 2)
    """
    return dict(_unbox(_boxed(model, key)))


def abstract_params(model: Model) -> Params:
    """The same tree with a jax.ShapeDtypeStruct per array; computes nothing."""
    return dict(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))


def param_axes(model: Model) -> Params:
    """The same tree with a tuple of logical axis names (or None) for every array."""
    boxed = jax.eval_shape(lambda: _boxed(model, jax.random.key(0)))
    return dict(jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=_is_box))


def unembedding(model: Transformer, params: Params) -> jax.Array:
    """The output head [D, V] in the compute type; if tied, the transposed embedding."""
    tied = model.config.tie_embeddings
    head = params["embedding"].T if tied else params["head"]
    return jnp.asarray(head, dtype=jnp.dtype(model.config.dtype))


@flax.struct.dataclass
class DecodeParams:
    """The parameters that every decode step reads, prepared once before the loop.

    Slicing parameters into layers inside a loop copies them, and cosines computed
    inside it are computed again for every head.

    Attributes:
      layers: L trees of one block's parameters; see `layer`.
      embedding: [V, D].
      head: [D, V]; [V, D] or None, for the embedding itself, if they are tied.
      final_norm: the last norm's parameters.
      rope: cosines and sines of every response column, each [T, P, 1, H/2].
      vocab_size: static, V without the padding that a mesh may need.
      by_output: static, whether the layers hold LARGE_MATRICES transposed, [out, in],
        as a CPU multiplies a few bfloat16 rows with them up to twice as fast.
    """

    layers: tuple[Params, ...]
    embedding: jax.Array
    head: jax.Array | None
    final_norm: Params
    rope: RopeTable
    vocab_size: int = flax.struct.field(pytree_node=False)
    by_output: bool = flax.struct.field(pytree_node=False)

    def layer(self, number: int) -> Params:
        """The variables of one block, for `Block.apply`."""
        layer = self.layers[number]
        if not self.by_output:
            return {"params": layer}
        # The modules ask for all matrices as they declare them, and read these others.
        return {"params": _transpose(layer), BY_OUTPUT: layer}


def decode_params(
    model: Transformer, params: Params, prompt_lengths: jax.Array, size: int
) -> DecodeParams:
    """Slices a model's parameters for `decode_step`, in the compute type.

    Args:
      model: the transformer.
      params: its parameters.
      prompt_lengths: [P] tokens of each prompt.
      size: response columns T.
    """
    c = model.config
    dtype = jnp.dtype(c.dtype)
    narrow = jnp.dtype(c.matmul_dtype or c.dtype)  # of what is only multiplied with
    by_output = narrow != dtype
    layers = tuple(
        _one_layer(params["layers"], layer, dtype, narrow, by_output)
        for layer in range(c.num_layers)
    )
    positions = jnp.arange(size)[:, None] + prompt_lengths[None]  # [T, P]
    rope = rope_table(positions[..., None], c.head_dim, c.rope_theta, c.rope_scaling)
    embedding, head = params["embedding"].astype(dtype), None  # [V, D]
    if c.tie_embeddings:
        embedding = pad_vocab(model.constrain, embedding, ("vocab", "embed"))
        head = None if narrow == dtype else embedding.astype(narrow)  # [V, D]
    else:
        head = params["head"].astype(narrow)  # [D, V]
        head = pad_vocab(model.constrain, head, ("embed", "vocab"))
    # Split as the activations are that are looked up in it at every step.
    embedding = stationary(model.constrain)(embedding, ("vocab", "residual"))
    return DecodeParams(
        layers, embedding, head, params["final_norm"], rope, c.vocab_size, by_output
    )


# One program for all layers: with one program per layer, slicing a model of thirty
# layers takes longer to compile than the step that reads them.
@partial(jax.jit, static_argnums=(2, 3, 4))
def _one_layer(
    stacked: Params, layer: int, dtype: np.dtype, narrow: np.dtype, by_output: bool
) -> Params:
    def one(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        x = jax.lax.dynamic_index_in_dim(x, layer, keepdims=False)
        return x.astype(narrow if path[-1].key in MATRICES else dtype)

    params: Params = jax.tree_util.tree_map_with_path(one, stacked)
    return _transpose(params) if by_output else params


def _transpose(layer: Params) -> Params:
    """The layer with each of LARGE_MATRICES transposed."""

    def one(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return x.T if path[-1].key in LARGE_MATRICES else x

    return dict(jax.tree_util.tree_map_with_path(one, layer))


def decode_logits(
    model: Transformer, params: DecodeParams, hidden: jax.Array
) -> jax.Array:
    """Logits [B, V] float32 of hidden states [B, D]; -inf where V has padding."""
    constrain = stationary(model.constrain)
    hidden = constrain(hidden, ("batch", "residual"))
    # A tied head is transposed inside the product: as a separate array it would be
    # another copy of the largest parameter.
    equation = "bd,vd->bv" if model.config.tie_embeddings else "bd,dv->bv"
    head = params.embedding if params.head is None else params.head
    rows = hidden.astype(head.dtype)
    logits = jnp.einsum(equation, rows, head, preferred_element_type=jnp.float32)
    # First the sums, then each device's own rows.
    logits = constrain(logits, ("batch", "vocab"))
    logits = model.constrain(logits, ("batch", "vocab"))
    if logits.shape[1] == params.vocab_size:
        return logits
    columns = jnp.arange(logits.shape[1])[None]  # [1, V]
    return jnp.where(columns < params.vocab_size, logits, -jnp.inf)
