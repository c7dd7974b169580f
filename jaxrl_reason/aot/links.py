"""How fast the devices of a group exchange: links of a torus, or nodes of GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.aot.collectives import Collective
from jaxrl_reason.aot.topology import Topology


@dataclass(frozen=True)
class Span:
    """Where the devices of a group are.

    Attributes:
      links: over which each sends at a time, one way; of a torus.
      nodes: of GPUs.
      per_node: devices of the group in each.
    """

    links: float = 0.0
    nodes: int = 1
    per_node: int = 1


def span_of(devices: Sequence[Any], topology: Topology) -> Span:
    """Where the devices of a group are.

    A closed side of the torus that the group covers gives two links, another side one;
    if the group has gaps there, messages share links with those of other groups.

    Args:
      devices: of the group.
      topology: of all devices.
    """
    chip = topology.chip
    if chip.platform == "cuda":
        nodes = {device.id // chip.node for device in devices}
        return Span(nodes=len(nodes), per_node=len(devices) // len(nodes))
    links = 0.0
    for side, (length, closed) in enumerate(
        zip(topology.shape, topology.wraps, strict=True)
    ):
        places = {device.coords[side] for device in devices}
        if len(places) < 2:
            continue
        stride = (max(places) - min(places)) / (len(places) - 1)
        links += 2.0 if closed and len(places) == length else 1 / stride
    # The two devices of one chip are joined within it, faster than by a link.
    return Span(links=links or 2.0 * chip.dimensions)


def exchange_seconds(exchange: Collective, span: Span, topology: Topology) -> float:
    """Seconds of one exchange, if nothing else uses the links.

    On a torus a device sends over all links of its group at a time. Between nodes every
    GPU has a part of the array, which crosses the network once; inside a node it goes
    through the switch at the same time.

    Args:
      exchange: what is sent.
      span: where its devices are.
      topology: of all devices.
    """
    chip = topology.chip
    if chip.platform == "tpu":
        links = 1.0 if exchange.kind == "collective-permute" else span.links
        return exchange.sent / (links * chip.link)
    if exchange.kind == "collective-permute":
        return exchange.payload / (chip.network if span.nodes > 1 else chip.link)
    passes = 2 if exchange.kind == "all-reduce" else 1
    n, m = span.nodes, span.per_node
    between = exchange.payload * (n - 1) / n / (m * chip.network)
    inside = exchange.payload * (m - 1) / m / chip.link
    return passes * max(between, inside)
