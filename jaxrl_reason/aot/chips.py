"""Public figures of accelerators, one row each: what a step is measured against.

Sources: the pages of cloud.google.com/tpu/docs for v4, v5e, v5p, v6e and tpu7x, which
give a chip's peak, memory, bandwidth and interconnect (both directions of all links
together); NVIDIA's data sheets of H100 SXM, H200 SXM and HGX B200, without sparsity,
NVLink with both directions together and one 400 Gb/s network port for each GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

GB, GIB, TERA = 1e9, 2**30, 1e12


@dataclass(frozen=True)
class Chip:
    """One device, as JAX counts devices: half of a chip for tpu7x.

    Attributes:
      name: as in a topology's text.
      platform: of JAX, tpu or cuda.
      peak_flops: products of bfloat16 a second, added up in float32.
      memory: bytes that a program may use: on TPU what the compiler allows, on GPU the
        card's.
      bandwidth: bytes of its memory read or written a second.
      link: bytes a second that one link sends, one way: between neighbours of a torus,
        or from a GPU to its node's switch.
      dimensions: of the torus; 0 for GPUs, whose nodes are fully connected.
      network: bytes a second from a GPU to other nodes, one way; 0 for TPU.
      node: GPUs in a node; 0 for TPU.
      devices_per_chip: of JAX.
    """

    name: str
    platform: str
    peak_flops: float
    memory: float
    bandwidth: float
    link: float
    dimensions: int = 0
    network: float = 0.0
    node: int = 0
    devices_per_chip: int = 1


def _tpu(
    name: str,
    tera: float,
    gib: float,
    bandwidth: float,
    link: float,
    dimensions: int,
    devices_per_chip: int = 1,
) -> Chip:
    return Chip(
        name,
        "tpu",
        tera * TERA,
        gib * GIB,
        bandwidth * GB,
        link * GB,
        dimensions,
        devices_per_chip=devices_per_chip,
    )


def _gpu(name: str, tera: float, memory: float, bandwidth: float, link: float) -> Chip:
    return Chip(
        name,
        "cuda",
        tera * TERA,
        memory * GB,
        bandwidth * GB,
        link * GB,
        network=50 * GB,
        node=8,
    )


# A link of a TPU, one way: the chip's figure over its 2 links a dimension and 2 ways.
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        chip.name: chip
        for chip in (
            _tpu("v4", 275, 30.75, 1228, 50, 3),
            _tpu("v5e", 197, 15.75, 819, 50, 2),
            _tpu("v5p", 459, 95.74, 2765, 100, 3),
            _tpu("v6e", 918, 31.25, 1640, 100, 2),
            # 2307 TFLOP/s, 7380 GB/s and 1200 GB/s a chip, which is two devices.
            _tpu("tpu7x", 1153.5, 94.75, 3690, 50, 3, devices_per_chip=2),
            _gpu("h100", 989.4, 80, 3350, 450),
            _gpu("h200", 989.4, 141, 4800, 450),
            _gpu("b200", 2250, 180, 7700, 900),
        )
    }
)
