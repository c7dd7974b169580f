"""The mesh of a run."""

import math

import jax

from jaxrl_reason.sharding import ShardingRules, make_mesh, mesh_sizes, parse_mesh
from jaxrl_reason.sharding.processes import count


def build_mesh(sizes: str, sampler: str = "") -> jax.sharding.Mesh:
    """The requested mesh; a CPU is split into as many virtual devices as needed.

    Virtual devices are for tests of sharding. Two on two cores would be a quarter
    faster than one on both, but XLA's CPU collectives can deadlock when several steps
    are in flight on so few threads; hence one step at a time.

    Args:
      sizes: such as data=2,tensor=2, or auto.
      sampler: those of a sampler with devices of its own, which then are free.

    Raises:
      ValueError: the devices do not suffice or cannot be shared out.
    """
    processes = count()
    check_sizes(sizes, bool(sampler))
    wanted = processes if sizes == "auto" else devices_of(sizes)
    if wanted % processes:
        raise ValueError(
            f"a mesh must have the same number of devices on each of the {processes} "
            f"processes, got {sizes!r} with {wanted}"
        )
    wanted += devices_of(sampler) if sampler else 0
    if max(wanted, processes) > 1:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.config.update("jax_num_cpu_devices", max(1, wanted // processes))
    return make_mesh(data=len(jax.devices())) if sizes == "auto" else parse_mesh(sizes)


def check_sizes(sizes: str, own_sampler: bool) -> None:
    """Raises for a sampler's own devices beside all devices, or in many processes.

    Args:
      sizes: of the run's mesh.
      own_sampler: whether a sampler has a mesh of its own.

    Raises:
      ValueError: the two cannot share the devices.
    """
    processes = count()
    if own_sampler and (sizes == "auto" or processes > 1):
        raise ValueError(
            f"sampler.mesh needs a mesh with sizes and one process, got mesh {sizes} "
            f"and {processes} process{'es' * (processes > 1)}"
        )


def build_sampler_mesh(sizes: str, training: jax.sharding.Mesh) -> jax.sharding.Mesh:
    """A mesh of the devices that follow those of the training.

    Raises:
      ValueError: there are too few.
    """
    free = [d for d in jax.devices() if d not in set(training.devices.flat)]
    wanted = devices_of(sizes)
    if wanted > len(free):
        raise ValueError(
            f"sampler.mesh {sizes} needs {wanted} devices beside the {training.size} "
            f"of mesh, got {len(free)}"
        )
    return parse_mesh(sizes, devices=free[:wanted])


def run_rules(sequence_parallel: bool) -> ShardingRules:
    """The rules of a run: devices that share long rows share parameters too.

    Args:
      sequence_parallel: whether the axis tensor splits the columns of rows between the
        blocks of a layer.
    """
    return ShardingRules(
        embed=("fsdp", "context"), sequence="tensor" if sequence_parallel else None
    )


def devices_of(sizes: str) -> int:
    """The number of devices of a mesh, such as 4 of data=2,tensor=2."""
    return math.prod(mesh_sizes(sizes).values())
