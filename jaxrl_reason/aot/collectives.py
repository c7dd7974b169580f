"""What a compiled program sends between devices, and along which axes of the mesh."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from jaxrl_reason.aot.hlo_text import Execution, Instruction

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")
_SCATTER = "all-reduce-scatter"
_CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclass(frozen=True)
class Collective:
    """One exchange, and how often a step makes it.

    Attributes:
      kind: such as all-gather.
      axes: mesh axes along which the devices of a group differ.
      group: devices that exchange with each other.
      payload: bytes of the whole array: what a gather results in, what a sum or a
        scatter adds up.
      times: how often.
      where: in the traced function.
    """

    kind: str
    axes: tuple[str, ...]
    group: int
    payload: float
    times: float
    where: str

    @property
    def sent(self) -> float:
        """Bytes that a device sends in one exchange over a ring.

        A sum is a scatter and a gather, each (g - 1) / g of the array.
        """
        if self.kind == "collective-permute":
            return self.payload
        passes = 2 if self.kind == "all-reduce" else 1
        return passes * self.payload * (self.group - 1) / self.group


def find_collectives(
    runs: Iterable[Execution], mesh: Mapping[str, int]
) -> list[Collective]:
    """Every exchange of a program, once.

    An asynchronous one stands in the text several times: where it starts, where it
    ends, and in fusions between; equal kind, channel and shapes are one exchange. A
    TPU's program writes a scatter as a fusion of a sum and a slice, and says so in the
    fusion's name; a sum that is sliced elsewhere is sent whole.

    Args:
      runs: of `executions`.
      mesh: sizes of the axes; partition i of the program is device i of the mesh.
    """
    found: dict[tuple[str, str, float], Collective] = {}
    for run in runs:
        x = run.instruction
        kind = x.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = group_of(x)
        if len(group) < 2:
            continue
        channel = _CHANNEL.search(x.text)
        payload = payload_of(kind, x, len(group))
        if run.computation.startswith(_SCATTER):
            kind = "reduce-scatter"
        key = (kind, channel[1] if channel else f"{run.computation}/{x.name}", payload)
        if key in found and found[key].times >= run.times:
            continue
        found[key] = Collective(
            kind, axes_of(group, mesh), len(group), payload, run.times, x.op_name
        )
    return list(found.values())


def payload_of(kind: str, x: Instruction, group: int) -> float:
    """Bytes of the whole array of an exchange."""
    shapes = x.shapes
    if x.opcode in ("all-gather-start", "reduce-scatter-start"):
        shapes = shapes[len(shapes) // 2 :]  # operands, then results
    elif x.opcode == "collective-permute-start":
        shapes = shapes[1:2]
    size = sum(shape.bytes for shape in shapes)
    return size * group if kind == "reduce-scatter" else size


def group_of(x: Instruction) -> list[int]:
    """The first group of partitions that exchange with each other.

    Args:
      x: a collective, with its groups in any of the forms that XLA prints.
    """
    if found := _PAIRS.search(x.text):
        first = re.findall(r"\d+", found[1])[:2]
        return sorted({int(n) for n in first})
    if found := _LISTED.search(x.text):
        return _whole(found[1])
    if found := _IOTA.search(x.text):
        shape, sizes = _whole(found[1]), _whole(found[2])
        ids = np.arange(math.prod(sizes)).reshape(sizes)
        if found[3]:
            ids = ids.transpose(_whole(found[3]))
        return [int(n) for n in ids.reshape(shape)[0]]
    if found := _MESH.search(x.text):
        return _mesh_group(found)
    return []


def _mesh_group(found: re.Match[str]) -> list[int]:
    """The first group of ``mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}``.

    The braces name whole axes, or parts of them: ``'a':(2)4`` is 4 after the first 2.
    """
    sizes = [(name, int(n)) for name, n in re.findall(r"'([^']+)'=(\d+)", found[1])]
    ids = np.arange(math.prod(n for _, n in sizes))
    if found[2]:
        ids = ids.reshape(_whole(found[2]))
        if found[3]:
            ids = ids.transpose(_whole(found[3]))
    parts = {
        name: (int(before), int(part)) if part else None
        for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", found[4])
    }
    shape: list[int] = []
    for name, size in sizes:
        before, part = (size, 1) if name not in parts else parts[name] or (1, size)
        shape += [before, part, size // (before * part)]
    inside = range(1, len(shape), 3)  # the middle of each three
    ids = np.moveaxis(ids.reshape(shape), inside, range(-len(inside), 0))
    count = math.prod(shape[i] for i in inside)
    return sorted(int(n) for n in ids.reshape(-1, count)[0])


def _whole(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def axes_of(group: list[int], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ.

    >>> axes_of([0, 2, 4], {"data": 1, "fsdp": 4, "tensor": 2})
    ('fsdp',)
    """
    places = np.unravel_index(group, tuple(mesh.values()))
    pairs = zip(mesh, places, strict=True)
    return tuple(name for name, place in pairs if len(set(place.tolist())) > 1)
