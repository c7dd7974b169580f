"""Rules from logical axes (what a dimension means) to mesh axes (how it is sharded).

Also their two uses in a step: batches are placed on the mesh, and activations are
constrained to it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrl_reason.sharding.mesh import check_batch
from jaxrl_reason.sharding.processes import fetch, put

MeshAxes = str | tuple[str, ...] | None
LogicalAxes = tuple[str | None, ...]
Move = Callable[..., Any]  # of arrays, to the host or to devices
# A `Constrainer`, or a plain function of an array and its logical axes.
Constrain = Callable[[jax.Array, LogicalAxes], jax.Array]


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """Which mesh axes shard each logical axis.

    A value is the name of a mesh axis, a tuple of names (sharded over their product),
    or None (not sharded). Changing the strategy changes the rules, never the model.

    Attributes:
      batch: sequences B of a batch.
      columns: columns S of a row wherever it is; inside attention keys and values are
        gathered (context parallelism). Where the mesh does not divide S, it is not
        split.
      sequence: what splits columns S further between the blocks of a layer; "tensor"
        for sequence parallelism (arXiv 2205.05198).
      embed: hidden size D, in a parameter.
      residual: hidden size D of the activations between the blocks of a layer; see
        `stationary`.
      heads: attention heads N.
      kv_heads: key and value heads K. Where the mesh does not divide K, their
        parameters are not split, and attention makes copies of the heads.
      head_dim: size H of a head.
      mlp: hidden units of the feed-forward block.
      vocab: tokens V of the embedding and the output head. If the mesh does not divide
        V, these two are not sharded along it, and their products are padded with zeros
        (`pad_vocab`).
      layers: stacked layers L of a scanned parameter.

    Example:
      >>> tuple(ShardingRules().spec(("layers", "embed", "mlp")))
      (None, 'fsdp', 'tensor')
    """

    batch: MeshAxes = ("data", "fsdp")
    columns: MeshAxes = "context"
    sequence: MeshAxes = None
    embed: MeshAxes = "fsdp"
    residual: MeshAxes = None
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    mlp: MeshAxes = "tensor"
    vocab: MeshAxes = "tensor"
    layers: MeshAxes = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            names = (value,) if isinstance(value, str) else value
            if names is None:
                continue
            if not isinstance(names, tuple) or not all(
                isinstance(name, str) and name for name in names
            ):
                raise ValueError(
                    f"rule {field.name} must be a mesh axis, a tuple of mesh axes or "
                    f"None, got {value!r}"
                )
            if len(set(names)) != len(names):
                raise ValueError(
                    f"rule {field.name} must name a mesh axis once, got {value!r}"
                )

    def mesh_axes(self, axis: str | None) -> tuple[str, ...]:
        """The mesh axes that shard one logical axis.

        Args:
          axis: a logical axis, or None for a dimension that is never sharded.

        Returns:
          Names of mesh axes, empty if the dimension is not sharded.

        Raises:
          ValueError: the logical axis is unknown.
        """
        if axis is None:
            return ()
        known = [field.name for field in dataclasses.fields(self)]
        if axis not in known:
            raise ValueError(f"logical axes are {', '.join(known)}; got {axis!r}")
        names = ("columns", "sequence") if axis == "sequence" else (axis,)
        values: list[MeshAxes] = [getattr(self, name) for name in names]
        return tuple(
            mesh_axis
            for value in values
            for mesh_axis in ((value,) if isinstance(value, str) else value or ())
        )

    def spec(self, axes: LogicalAxes) -> PartitionSpec:
        """The partition of an array whose dimensions have these logical axes.

        Args:
          axes: one logical axis, or None, for each dimension.

        Returns:
          One entry for each dimension.

        Raises:
          ValueError: a logical axis is unknown, or two of them are sharded over the
          same mesh axis.
        """
        taken: dict[str, str | None] = {}
        entries: list[MeshAxes] = []
        for axis in axes:
            names = self.mesh_axes(axis)
            for name in names:
                if name in taken:
                    raise ValueError(
                        f"a mesh axis splits one dimension of an array; {axis!r} and "
                        f"{taken[name]!r} are both on {name!r} in {axes!r}"
                    )
                taken[name] = axis
            entries.append(names if len(names) > 1 else next(iter(names), None))
        return PartitionSpec(*entries)

    def sharding(self, mesh: Mesh, axes: LogicalAxes) -> NamedSharding:
        """`spec` on a mesh.

        Args:
          mesh: any mesh with the axes that the rules name.
          axes: one logical axis, or None, for each dimension.

        Returns:
          The sharding.

        Raises:
          ValueError: as `spec`, or the mesh lacks an axis.
        """
        for axis in axes:
            self.split(mesh, axis)
        return NamedSharding(mesh, self.spec(axes))

    def split(self, mesh: Mesh, axis: str | None) -> int:
        """The number of parts into which a mesh splits one logical axis.

        Args:
          mesh: the mesh.
          axis: a logical axis or None.

        Returns:
          The product of the sizes of its mesh axes, 1 if it is not sharded.

        Raises:
          ValueError: the logical axis is unknown, or the mesh lacks an axis.
        """
        names = self.mesh_axes(axis)
        for name in names:
            if name not in mesh.shape:
                raise ValueError(
                    f"rule {axis} names the mesh axis {name!r}, but this mesh has "
                    f"{', '.join(map(repr, mesh.axis_names))}"
                )
        return math.prod(mesh.shape[name] for name in names)

    def constrainer(self, mesh: Mesh) -> "Constrainer":
        """A function that constrains arrays in a jitted function to these rules."""
        return Constrainer(mesh, self)


@dataclasses.dataclass(frozen=True)
class Constrainer:
    """Constrains an array to the rules: ``constrain(x, ("batch", "sequence", None))``.

    Compares and hashes by value, so that a model holding one is a valid static
    argument of `jax.jit`.

    Attributes:
      mesh: the mesh.
      rules: the rules.
    """

    mesh: Mesh
    rules: ShardingRules

    def __call__(self, x: jax.Array, axes: LogicalAxes) -> jax.Array:
        """Returns `x` with the same values, sharded according to the rules.

        Args:
          x: any array.
          axes: one logical axis, or None, for each of its dimensions.

        Raises:
          ValueError: the number of axes is not the rank, or the mesh does not divide
            a dimension.
        """
        return jax.lax.with_sharding_constraint(x, self.sharding(axes, x.shape))

    def sharding(self, axes: LogicalAxes, shape: tuple[int, ...]) -> NamedSharding:
        """The sharding that a call gives an array of this shape; raises as a call."""
        return checked_sharding(self.mesh, self.rules, axes, shape, "an array")

    def split(self, axis: str | None) -> int:
        """`ShardingRules.split` on this mesh; it must divide a dimension's size."""
        return self.rules.split(self.mesh, axis)

    def splits(
        self, axes: LogicalAxes, shape: tuple[int, ...]
    ) -> list[tuple[str, ...]]:
        """The mesh axes of several devices that split each dimension of an array."""
        found = []
        for entry in self.sharding(axes, shape).spec:
            names = (entry,) if isinstance(entry, str) else entry or ()
            found.append(tuple(name for name in names if self.mesh.shape[name] > 1))
        return found


def no_constraint(x: jax.Array, axes: LogicalAxes) -> jax.Array:
    """Returns `x` unchanged: the constrainer of a model without a mesh."""
    del axes
    return x


def parts_of(constrain: Constrain, axis: str | None) -> int:
    """The number of parts of a logical axis on a model's mesh; 1 without a mesh."""
    return constrain.split(axis) if isinstance(constrain, Constrainer) else 1


def stationary(constrain: Constrain) -> Constrain:
    """Rules for a step of few tokens: activations are sent, parameters stay.

    Where a parameter and the batch are split over one mesh axis, a product needs one of
    the two on every device. In training that is the parameter, gathered once for many
    tokens. Decoding has one token per sequence, and activations are smaller: here the
    axes that split D in a parameter split it in activations too, and no longer their
    batch, so that products are sums over these axes. Source: arXiv 2211.05102, section
    3.2.2 (two-dimensional weight-stationary layout).

    Args:
      constrain: of a model.

    Returns:
      Its constrainer with other rules of `batch` and `residual`; `constrain` itself if
      its mesh does not split `embed`.

    Example:
      >>> stationary(no_constraint) is no_constraint
      True
    """
    if not isinstance(constrain, Constrainer) or constrain.split("embed") == 1:
        return constrain
    rules = constrain.rules
    moved = rules.mesh_axes("embed")
    batch = tuple(axis for axis in rules.mesh_axes("batch") if axis not in moved)
    rules = dataclasses.replace(
        rules, batch=batch, residual=moved, columns=None, sequence=None
    )
    return dataclasses.replace(constrain, rules=rules)


def pad_vocab(constrain: Constrain, x: jax.Array, axes: LogicalAxes) -> jax.Array:
    """Pads a vocabulary that a mesh does not divide with zeros, and shards it.

    A parameter holds the vocabulary without padding, so that checkpoints and exports do
    not depend on the mesh; its product with hidden states is still sharded evenly. The
    caller masks the logits of the padding.

    Args:
      constrain: of a model.
      x: an embedding or an output head.
      axes: its logical axes, ``vocab`` among them.

    Returns:
      `x` with V rounded up to a multiple of the parts; `x` itself if they divide V.

    Example:
      >>> pad_vocab(no_constraint, jnp.ones((5, 2)), ("vocab", "embed")).shape
      (5, 2)
    """
    if not isinstance(constrain, Constrainer):
        return x
    dimension = axes.index("vocab")
    missing = -x.shape[dimension] % constrain.split("vocab")
    if not missing:
        return x
    room = [(0, missing if i == dimension else 0) for i in range(x.ndim)]
    return constrain(jnp.pad(x, room), axes)


def checked_sharding(
    mesh: Mesh,
    rules: ShardingRules,
    axes: LogicalAxes,
    shape: tuple[int, ...],
    name: str,
) -> NamedSharding:
    """`ShardingRules.sharding` of an array of known shape.

    A vocabulary, columns or key and value heads that the mesh does not divide are not
    sharded.

    Args:
      mesh: the mesh.
      rules: the rules.
      axes: one logical axis, or None, for each dimension.
      shape: the array's shape.
      name: what to call the array in an error.

    Returns:
      The sharding.

    Raises:
      ValueError: the number of axes is not the rank, or the mesh does not divide a
        dimension.
    """
    if len(axes) != len(shape):
        raise ValueError(
            f"{name} needs one logical axis for each dimension, got {axes!r} for the "
            f"shape {shape}"
        )
    may_be_whole = ("vocab", "columns", "sequence", "kv_heads")
    axes = tuple(
        None if axis in may_be_whole and size % rules.split(mesh, axis) else axis
        for axis, size in zip(axes, shape, strict=True)
    )
    sharding = rules.sharding(mesh, axes)
    for dimension, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        parts = rules.split(mesh, axis)
        if size % parts:
            split_over = " x ".join(
                f"{mesh_axis}={mesh.shape[mesh_axis]}"
                for mesh_axis in rules.mesh_axes(axis)
            )
            raise ValueError(
                f"the mesh must divide every dimension: {name} of shape {shape} has "
                f"{size} in dimension {dimension} ({axis}), which {split_over} does "
                "not divide"
            )
    return sharding


@dataclasses.dataclass(frozen=True)
class BatchSharding:
    """Places packed batches on a mesh: rows over the batch axes, micro-batches whole.

    Attributes:
      mesh: of the devices.
      rules: from logical axes to mesh axes.
      fetch: brings arrays to the host, whole, on every process of the mesh.
    """

    mesh: Mesh
    rules: ShardingRules
    fetch: Move = dataclasses.field(init=False, repr=False, compare=False)
    _put: Move = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A mesh without devices, on which functions are only lowered, has no processes.
        many = isinstance(self.mesh, Mesh) and self.mesh.is_multi_process
        object.__setattr__(self, "fetch", fetch if many else jax.device_get)
        object.__setattr__(self, "_put", put if many else jax.device_put)

    @property
    def num_shards(self) -> int:
        """The number of devices over which the rows of a batch are sharded."""
        return self.rules.split(self.mesh, "batch")

    def check_rows(self, rows: int) -> None:
        """Raises for a number of rows that the mesh does not divide."""
        check_batch(self.mesh, self.rules, rows, "rows of a micro-batch")

    def replicate(self, x: Any) -> Any:
        """Replicates arrays on every device."""
        return self._put(x, NamedSharding(self.mesh, PartitionSpec()))

    def put_batch(self, batch: Any, *, axis: int = 0) -> Any:
        """Places arrays whose dimension `axis` is that of rows: sharded over devices.

        Args:
          batch: arrays [B, ...] such as prompts; micro-batches [K, M, ...] have axis 1.
          axis: the dimension that the batch axes split.
        """
        spec = PartitionSpec(*[None] * axis, self.rules.batch)
        return self._put(batch, NamedSharding(self.mesh, spec))
