"""Bytes that a compiled program reads from and writes to a device's memory.

XLA's own count takes a loop's body once. Here every instruction outside fusions counts
its operands and results, as often as it runs; what a fusion only slices or updates in
place counts with the size of the slice, and arrays in a TPU's on-chip memory not at
all. Caches of a GPU are left out, so it is an upper bound there.
"""

from collections.abc import Iterable, Mapping

from jaxrl_reason.aot.collectives import KINDS
from jaxrl_reason.aot.hlo_text import Execution, Instruction, Program, Shape

# They move nothing, or what they run is counted by itself.
_FREE = frozenset(
    {
        "parameter",
        "constant",
        "iota",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "opt-barrier",
        "partition-id",
        "replica-id",
        "async-start",
        "async-update",
    }
)
# How TPU programs mark the start and the end of an exchange inside a fusion.
_ASYNC = "AsyncCollective"
_SLICES = ("dynamic-slice", "slice", "gather")


def memory_traffic(program: Program, runs: Iterable[Execution]) -> float:
    """Bytes of one call on each device.

    Args:
      program: the compiled program.
      runs: its executions.
    """
    by_name = {
        computation: {x.name: x for x in lines}
        for computation, lines in program.computations.items()
    }
    total = 0.0
    for run in runs:
        x = run.instruction
        done = x.opcode.endswith("-done") or x.opcode.removesuffix("-start") in KINDS
        if run.fused or done or x.opcode in _FREE:
            continue
        total += run.times * _moved(x, by_name[run.computation], program)
    return total


def _moved(x: Instruction, known: Mapping[str, Instruction], program: Program) -> float:
    operands = [known[name].shapes if name in known else () for name in x.operands]
    if x.opcode in _SLICES:
        return 2 * _size(x.shapes)
    if x.opcode == "slice-start":
        read = sum(shape.bytes for shape in x.shapes[1:2])
        return read + _size(x.shapes[1:2])
    if x.opcode == "copy-start":
        return _size(x.shapes[:2])
    if x.opcode == "dynamic-update-slice":
        return 2 * _size(operands[1])
    if x.opcode == "fusion" and x.called:
        return _of_fusion(x, operands, program.computations[x.called[0]])
    return _size(x.shapes) + sum(map(_size, operands))


def _of_fusion(
    x: Instruction, operands: list[tuple[Shape, ...]], lines: tuple[Instruction, ...]
) -> float:
    users: dict[str, list[Instruction]] = {}
    for line in lines:
        for name in line.operands:
            users.setdefault(name, []).append(line)
    by_name = {line.name: line for line in lines}
    moved = 0.0
    for line in lines:
        if line.opcode != "parameter":
            continue
        outside = operands[int(line.inside)]
        moved += min(_size(outside), _read(line, users, outside))
    roots = [line for line in lines if line.root]
    if roots and roots[0].opcode == "tuple":
        roots = [by_name[name] for name in roots[0].operands if name in by_name]
    for root, shape in zip(roots, x.shapes, strict=False):
        while root.opcode == "bitcast" and root.operands[0] in by_name:
            root = by_name[root.operands[0]]
        if root.opcode in ("parameter", *KINDS) or _ASYNC in root.text:
            continue  # handed on, or the interconnect's
        if root.opcode == "dynamic-update-slice" and root.operands[1] in by_name:
            update = by_name[root.operands[1]].shapes
            moved += min(_size((shape,)), sum(s.bytes for s in update))
        else:
            moved += _size((shape,))
    return moved


def _read(
    line: Instruction,
    users: Mapping[str, list[Instruction]],
    outside: tuple[Shape, ...],
) -> float:
    """Bytes of a fusion's parameter that it reads, whatever its memory."""
    total = 0.0
    for user in users.get(line.name, []):
        if user.opcode == "bitcast":
            total += _read(user, users, outside)
        elif user.opcode in _SLICES and user.operands[0] == line.name:
            total += sum(shape.bytes for shape in user.shapes)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == line.name:
            continue
        elif user.opcode in ("tuple", *KINDS) or _ASYNC in user.text:
            continue  # handed on, or sent: that is the interconnect's
        else:
            return sum(shape.bytes for shape in outside)
    return total


def _size(shapes: tuple[Shape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if not shape.on_chip)
