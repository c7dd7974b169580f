"""The mesh of a run."""

import math
import re

import jax

from jaxrl_reason.sharding import make_mesh, parse_mesh
from jaxrl_reason.sharding.processes import count


def build_mesh(sizes: str) -> jax.sharding.Mesh:
    """The requested mesh; a CPU is split into as many virtual devices as needed.

    Virtual devices are for tests of sharding. Two on two cores would be a quarter
    faster than one on both, but XLA's CPU collectives can deadlock when several steps
    are in flight on so few threads; hence one step at a time.
    """
    wanted = math.prod(int(n) for n in re.findall(r"=\s*(\d+)", sizes))
    if sizes == "auto":
        wanted = count()
    if wanted % count():
        raise ValueError(
            f"a mesh must have the same number of devices on each of the {count()} "
            f"processes, got {sizes!r} with {wanted}"
        )
    if max(wanted, count()) > 1:
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.config.update("jax_num_cpu_devices", max(1, wanted // count()))
    return make_mesh(data=len(jax.devices())) if sizes == "auto" else parse_mesh(sizes)
