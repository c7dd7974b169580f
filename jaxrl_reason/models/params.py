"""Parameters of a model: made, described, and read, all from one declaration.

The declaration is the modules' own: each array has its shape, type, initialiser and
logical axes where it is used. Everything here derives from it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reason.models.transformer import Transformer, ValueModel
from jaxrl_reason.sharding import no_constraint

Model = Transformer | ValueModel
Params = dict[str, Any]


def _boxed(model: Model, key: jax.Array) -> Params:
    # One token only, which no mesh divides, so its activations are not constrained.
    model = model.clone(constrain=no_constraint)
    dummy = jnp.zeros((1, 1), dtype=jnp.int32)
    return dict(model.init(key, dummy, dummy, dummy)["params"])


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.Partitioned)


def _unbox(tree: Any) -> Any:
    # Only the value: placing arrays on a mesh is the caller's business.
    return jax.tree.map(lambda box: box.value, tree, is_leaf=_is_box)


def init_params(model: Model, key: jax.Array) -> Params:
    """Fresh parameters as a plain tree of dicts and arrays.

    Can be traced: under jit with out_shardings every array is made where it belongs.

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
    """The same tree with a jax.ShapeDtypeStruct for every array; computes nothing."""
    return dict(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))


def param_axes(model: Model) -> Params:
    """The same tree with a tuple of logical axis names (or None) for every array."""
    boxed = jax.eval_shape(lambda: _boxed(model, jax.random.key(0)))
    return dict(jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=_is_box))


def unembedding(model: Transformer, params: Params) -> jax.Array:
    """The output head [D, V] in the compute type; tied: the embedding, transposed."""
    tied = model.config.tie_embeddings
    head = params["embedding"].T if tied else params["head"]
    return jnp.asarray(head, dtype=jnp.dtype(model.config.dtype))
