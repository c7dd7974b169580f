"""Device meshes with the axes data, fsdp, context and tensor."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

if TYPE_CHECKING:
    from jaxrl_reason.sharding.rules import ShardingRules

MESH_AXES = ("data", "fsdp", "context", "tensor")


def make_mesh(
    *,
    data: int = 1,
    fsdp: int = 1,
    context: int = 1,
    tensor: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Builds a mesh of ``data x fsdp x context x tensor`` devices.

    All four axes always exist, so that one set of rules serves every mesh; one
    device is the mesh with every size 1.

    Args:
      data: number of copies of the parameters, which process different sequences.
      fsdp: number of devices over which each copy's parameters are sharded; these also
        process different sequences.
      context: number of devices that share the columns of long rows, and parameters.
      tensor: number of devices over which heads, hidden units and the vocabulary are
        sharded.
      devices: the devices to use, all of them. By default the first
        ``data * fsdp * context * tensor`` of `jax.devices()`.

    Returns:
      A mesh with the axes ``("data", "fsdp", "context", "tensor")``, all of type Auto.

    Raises:
      ValueError: a size is below 1, or the sizes do not multiply to the number of
        devices.

    Example:
      >>> dict(make_mesh().shape)
      {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1}
    """
    sizes = (data, fsdp, context, tensor)
    for name, size in zip(MESH_AXES, sizes, strict=True):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"mesh axis {name} must be a whole number >= 1, got {size!r}"
            )
    needed = math.prod(sizes)
    named = " x ".join(f"{name}={n}" for name, n in zip(MESH_AXES, sizes, strict=True))
    wanted = f"mesh {named} needs {needed} devices"
    if devices is None:
        available = jax.devices()
        if needed > len(available):
            raise ValueError(f"{wanted}, but only {len(available)} are available")
        devices = available[:needed]
    elif needed != len(devices):
        raise ValueError(f"{wanted}, but {len(devices)} were given")
    try:
        placed = mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:
        # An axis is no product of the torus's own: 8 x 8 on 4 x 4 x 4 chips.
        placed = mesh_utils.create_device_mesh(
            sizes, devices, allow_split_physical_axes=True
        )
    # Automatic axes: the compiler shards what the rules do not constrain.
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))


def parse_mesh(text: str, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds a mesh from text such as ``"data=2,fsdp=2,tensor=2"``.

    Args:
      text: comma-separated ``axis=size``; axes left out have size 1, and empty text
        is the mesh of one device.
      devices: as in `make_mesh`.

    Returns:
      The mesh.

    Raises:
      ValueError: an axis is unknown or named twice, a size is not an integer, or
      `make_mesh` rejects the sizes.

    Example:
      >>> dict(parse_mesh("fsdp=1").shape)
      {'data': 1, 'fsdp': 1, 'context': 1, 'tensor': 1}
    """
    return make_mesh(**mesh_sizes(text), devices=devices)


def mesh_sizes(text: str) -> dict[str, int]:
    """The sizes of all axes in text such as ``"data=2,fsdp=2,tensor=2"``.

    Args:
      text: as in `parse_mesh`.

    Raises:
      ValueError: an axis is unknown or named twice, or a size is not an integer.

    Example:
      >>> mesh_sizes("fsdp=8,tensor=2")
      {'data': 1, 'fsdp': 8, 'context': 1, 'tensor': 2}
    """
    sizes: dict[str, int] = {}
    for part in text.split(",") if text.strip() else []:
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in MESH_AXES:
            raise ValueError(
                f"mesh axes are {', '.join(MESH_AXES)}; got {name!r} in {text!r}"
            )
        if name in sizes:
            raise ValueError(f"a mesh axis is named once; {name!r} repeats in {text!r}")
        # ASCII digits only: int() would also take '1_0', ' 1' and other scripts.
        if not equals or not (number.isascii() and number.isdigit()):
            raise ValueError(
                f"a mesh is written like 'data=2,fsdp=4', got {part!r} in {text!r}"
            )
        sizes[name] = int(number)
    return {name: sizes.get(name, 1) for name in MESH_AXES}


def check_batch(
    mesh: Mesh, rules: "ShardingRules", batch_size: int, name: str = "batch"
) -> None:
    """Raises for a batch that the mesh does not divide.

    Args:
      mesh: the mesh.
      rules: the rules; only ``batch`` is read.
      batch_size: number of sequences B over all devices.
      name: what to call the number in the error.

    Raises:
      ValueError: the batch is empty or the mesh does not divide it.
    """
    axes = rules.mesh_axes("batch")
    parts = rules.split(mesh, "batch")
    if batch_size < 1 or batch_size % parts:
        split_over = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in axes)
        raise ValueError(
            f"{name} must be a positive multiple of {parts}"
            f" (mesh {split_over or 'not split'}), got {batch_size}"
        )
