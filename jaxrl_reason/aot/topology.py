"""Devices that are described, not there: TPU slices and nodes of GPUs."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies

from jaxrl_reason.aot.chips import CHIPS, Chip
from jaxrl_reason.aot.gpu_targets import target_config

_TEXT = re.compile(r"(?P<chip>[a-z0-9]+):(?P<shape>\d+(x\d+){0,2})", re.ASCII)
# For the process that compiles, before it imports JAX: libtpu looks for no hardware,
# and two processes may load it.
ENVIRONMENT: Mapping[str, str] = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# Largest TPU slices: 256 chips in two dimensions, 8,960 in three.
_LARGEST = {2: 256, 3: 8960}
_EXTRAS = {"tpu": ("libtpu", "tpu-aot"), "cuda": ("jax_plugins.xla_cuda12", "cuda-aot")}


@dataclass(frozen=True)
class Topology:
    """The devices of a slice, or of nodes of eight GPUs.

    Attributes:
      chip: each of them.
      shape: chips in each dimension of the torus; for GPUs their number.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_devices(self) -> int:
        """As JAX counts them."""
        return math.prod(self.shape) * self.chip.devices_per_chip

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether each dimension of the torus is closed, as in the real slices.

        In three dimensions whole cubes of 4 x 4 x 4 are; in two, a side of 16.
        """
        if self.chip.dimensions == 3:
            closed = all(side % 4 == 0 for side in self.shape)
            return (closed,) * 3
        return tuple(side == 16 for side in self.shape)

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """Reads ``v5p:4x4x4`` or ``h100:64``.

    Args:
      text: a chip of `CHIPS` and the sides of the slice, or the number of GPUs.

    Raises:
      ValueError: the chip is unknown, or there is no such slice.

    Example:
      >>> topology = parse_topology("v5p:4x4x4")
      >>> topology.num_devices, topology.wraps, str(topology)
      (64, (True, True, True), 'v5p:4x4x4')
      >>> parse_topology("h100:64").num_devices
      64
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(
            f"a topology is written like v5p:4x4x4 or h100:64, got {text!r}"
        )
    if found["chip"] not in CHIPS:
        raise ValueError(
            f"chips are {', '.join(CHIPS)}, got {found['chip']!r} in {text!r}"
        )
    chip = CHIPS[found["chip"]]
    shape = tuple(map(int, found["shape"].split("x")))
    if chip.platform == "cuda":
        _check_nodes(chip, shape, text)
    elif len(shape) != chip.dimensions:
        raise ValueError(
            f"a slice of {chip.name} has {chip.dimensions} sides, got {text!r}"
        )
    else:
        _check_slice(shape, text)
    return Topology(chip, shape)


def _check_nodes(chip: Chip, shape: tuple[int, ...], text: str) -> None:
    count = shape[0]
    whole = count % chip.node == 0 or count in (1, 2, 4)
    if len(shape) > 1 or not count or not whole:
        raise ValueError(
            f"GPUs are 1, 2, 4 or whole nodes of {chip.node}, such as "
            f"{chip.name}:{2 * chip.node}, got {text!r}"
        )


def _check_slice(shape: tuple[int, ...], text: str) -> None:
    most = _LARGEST[len(shape)]
    single = all(side == 1 for side in shape)
    even = all(side % 2 == 0 for side in shape[:2]) or single
    if 0 in shape or not even or math.prod(shape) > most:
        raise ValueError(
            f"a slice has even first sides and at most {most} chips, or is a single "
            f"chip, got {text!r}"
        )


def check_installed(platform: str) -> None:
    """Raises unless the compiler of a platform is installed.

    Args:
      platform: tpu or cuda.

    Raises:
      ValueError: it is not; the message names the extra.
    """
    module, extra = _EXTRAS[platform]
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # its parent is not there
        found = None
    if found is None:
        raise ValueError(
            f"compiling for {platform} needs pip install 'jaxrl-reason[{extra}]', "
            f"which is not installed"
        )


def describe_devices(topology: Topology) -> Sequence[jax.Device]:
    """The devices, for a mesh to compile on; nothing can run on them.

    Needs `ENVIRONMENT` from before JAX was imported.

    Args:
      topology: any.

    Raises:
      ValueError: the platform's compiler is not installed.
    """
    check_installed(topology.chip.platform)
    if topology.chip.platform == "cuda":
        nodes = max(1, topology.num_devices // topology.chip.node)
        found = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=target_config(topology.chip.name),
            topology=f"1x{nodes}x{topology.num_devices // nodes}",
        )
        return list(found.devices)
    settings: dict[str, Any] = {
        "chip_config_name": "megacore" if topology.chip.name == "v4" else "default",
        "chips_per_host_bounds": [2, 2, 1],
        "wrap": [*topology.wraps, False][:3],
    }
    if math.prod(topology.shape) == 1:
        settings["chips_per_host_bounds"] = [1, 1, 1]
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=str(topology), **settings
    )
    return list(found.devices)
