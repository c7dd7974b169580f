"""Where samplers read the policy's parameters on a mesh, and in which type.

A trainer splits them over the mesh and may keep more digits than it computes with.
Samplers read all of them for every token, so they get a copy once a step: sent from
device to device, never through the host, and dropped when the rollouts are drawn.
"""

import dataclasses
import math
from collections.abc import Hashable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_reason.models import Params, Transformer, abstract_params, param_axes
from jaxrl_reason.sharding import Constrainer, tree_shardings

WEIGHTS = ("auto", "split", "whole")
# With "auto", whole weights take at most this part of a device's memory.
WHOLE_AT_MOST = 1 / 16


@dataclasses.dataclass(frozen=True)
class WeightPlacement:
    """Copies a policy's parameters to where samplers read them.

    Attributes:
      model: the policy with the samplers' rules.
      gathered: mesh axes that no longer split the parameters.
      dtype: type of the copy; the scales of norms keep theirs.
    """

    model: Transformer
    gathered: tuple[str, ...]
    dtype: str

    def __call__(self, params: Params) -> Params:
        """The copy, when all devices have it.

        Args:
          params: of the policy, as in training; low-rank factors may be among them.
        """
        return dict(jax.block_until_ready(self._copier(params)(params)))

    def abstract(self, params: Params) -> Params:
        """Shapes, types and shardings of the copy; nothing is copied.

        Args:
          params: of the policy, or their shapes with shardings.
        """
        copied = jax.eval_shape(self._copier(params), params)
        return dict(
            jax.tree.map(
                lambda new, old: jax.ShapeDtypeStruct(
                    new.shape, new.dtype, sharding=self._target(old.sharding)
                ),
                copied,
                params,
            )
        )

    def _copier(self, params: Params) -> Any:
        shardings = jax.tree.map(lambda x: self._target(x.sharding), params)
        leaves, structure = jax.tree.flatten(shardings)
        return _copy(structure, tuple(leaves), self.dtype)

    def bytes_received(self, params: Params) -> int:
        """The bytes that one device gets from others in a call."""

        def received(x: jax.Array) -> int:
            parts = (self._target(x.sharding), x.sharding)
            whole, own = (math.prod(part.shard_shape(x.shape)) for part in parts)
            return (whole - own) * min(x.dtype.itemsize, jnp.dtype(self.dtype).itemsize)

        return sum(jax.tree.leaves(jax.tree.map(received, params)))

    def _target(self, sharding: Any) -> NamedSharding:
        axes = [(x,) if isinstance(x, str) else x or () for x in sharding.spec]
        kept = [tuple(x for x in part if x not in self.gathered) for part in axes]
        return NamedSharding(sharding.mesh, PartitionSpec(*kept))


def weight_placement(
    model: Transformer, weights: str = "auto", memory: float | None = None
) -> WeightPlacement | None:
    """How samplers of a policy get its parameters.

    "split" leaves them in the parts of the training: a decode step sends activations
    (`stationary`). "whole" gathers what is split over the hidden size, so that a step
    sends nothing between the devices that share it, for as many times the memory.
    "auto" is "whole" where a device reports its memory and that takes a sixteenth of it
    at most, else "split".

    Args:
      model: the policy.
      weights: one of WEIGHTS.
      memory: bytes of a device; what it reports if left out.

    Returns:
      None if samplers can read the parameters of the training as they are: the mesh
      does not split the hidden size, or they stay split and have the compute type.

    Raises:
      ValueError: weights is unknown.

    Example:
      >>> from jaxrl_reason.models import TransformerConfig
      >>> config = TransformerConfig(
      ...     vocab_size=8, hidden_size=4, num_layers=2, num_heads=2, num_kv_heads=1,
      ...     head_dim=2, mlp_dim=8, context_length=16)
      >>> weight_placement(Transformer(config)) is None
      True
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {WEIGHTS}, got {weights!r}")
    c, constrain = model.config, model.constrain
    if not isinstance(constrain, Constrainer) or constrain.split("embed") == 1:
        return None
    rules = dataclasses.replace(constrain.rules, embed=None)
    whole = dataclasses.replace(constrain, rules=rules)
    if weights == "whole" or (weights == "auto" and _fit(model, whole, memory)):
        gathered = constrain.rules.mesh_axes("embed")
        return WeightPlacement(model.clone(constrain=whole), gathered, c.dtype)
    return None if c.dtype == c.param_dtype else WeightPlacement(model, (), c.dtype)


def _fit(model: Transformer, whole: Constrainer, memory: float | None) -> bool:
    if memory is None:
        stats = next(iter(whole.mesh.local_devices)).memory_stats() or {}
        memory = stats.get("bytes_limit", 0)
    shapes, axes = abstract_params(model), param_axes(model)
    shardings = tree_shardings(whole.mesh, whole.rules, axes, shapes)
    sizes = jax.tree.map(
        lambda x, s: math.prod(s.shard_shape(x.shape)), shapes, shardings
    )
    needed = sum(jax.tree.leaves(sizes)) * jnp.dtype(model.config.dtype).itemsize
    return needed <= WHOLE_AT_MOST * memory


@cache
def _copy(structure: Hashable, shardings: tuple[NamedSharding, ...], dtype: str) -> Any:
    def cast(path: Any, x: jax.Array) -> jax.Array:
        # A norm multiplies in float32.
        return x if path[-1].key == "scale" else x.astype(dtype)

    return jax.jit(
        lambda params: jax.tree_util.tree_map_with_path(cast, params),
        out_shardings=jax.tree.unflatten(structure, shardings),
    )
