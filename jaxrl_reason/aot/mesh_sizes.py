"""Sizes of a mesh's axes: from a run's settings, and which of them divide a model."""

from collections.abc import Mapping

from jaxrl_reason.aot.topology import Topology
from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.sharding import mesh_sizes
from jaxrl_reason.train.devices import devices_of
from jaxrl_reason.train.train_settings import TrainSettings


def splits(config: TransformerConfig, tensor: int) -> bool:
    """Whether a layer's heads and hidden units divide by an axis of this size.

    Args:
      config: of the model.
      tensor: size of the axis.
    """
    return config.num_heads % tensor == 0 and config.mlp_dim % tensor == 0


def shares(config: TransformerConfig, width: int, sizes: Mapping[str, int]) -> bool:
    """Whether a mesh divides the hidden size, and the columns of rows by context.

    Args:
      config: of the model.
      width: columns of a row.
      sizes: of the mesh.
    """
    parts = sizes["fsdp"] * sizes["context"]
    return config.hidden_size % parts == 0 and width % sizes["context"] == 0


def batch_parts(sizes: Mapping[str, int]) -> int:
    """Parts into which a mesh splits the rows of a batch.

    Args:
      sizes: of the mesh.
    """
    return sizes["data"] * sizes["fsdp"]


def run_sizes(settings: TrainSettings, topology: Topology) -> dict[str, int]:
    """The sizes of the mesh on which a run trains; auto splits rows over all devices.

    Args:
      settings: of the run.
      topology: the devices.
    """
    if settings.mesh == "auto":
        return {**mesh_sizes(""), "data": topology.num_devices}
    return mesh_sizes(settings.mesh)


def mesh_text(sizes: Mapping[str, int]) -> str:
    """A mesh as text, without the axes that split nothing.

    Args:
      sizes: of its axes.

    Example:
      >>> mesh_text({"tensor": 1, "fsdp": 8})
      'fsdp=8'
    """
    named = ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1)
    return named or "data=1"


def own_devices(settings: TrainSettings) -> int:
    """Devices of a sampler's own mesh, 0 if it has none.

    Args:
      settings: of the run.
    """
    return devices_of(settings.sampler.mesh) if settings.sampler.mesh else 0
