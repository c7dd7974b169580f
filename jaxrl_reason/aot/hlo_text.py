"""The text of a compiled program: its instructions and how often each of them runs.

XLA gives no other form of a program that is compiled for absent devices. Only what the
counts here need is read: names, opcodes, shapes, operands, called computations.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_BYTES = {"pred": 1, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|called_computations|branch_computations)="
    r"(?:\{([^}]*)\}|(%[\w.\-]+))"
)
# What these call are functions of single elements, such as the sum of a reduction.
_OF_ELEMENTS = ("reduce", "all-reduce", "reduce-scatter", "sort", "scatter")
_TRIPS = re.compile(r'"known_trip_count":\s*\{"n":\s*"(\d+)"\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclass(frozen=True)
class Shape:
    """An array of a program.

    Attributes:
      dtype: as in the text, such as bf16.
      dims: its sizes.
      on_chip: whether it is in a TPU's on-chip memory.
    """

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False

    @property
    def bytes(self) -> float:
        """Without padding."""
        bits = re.search(r"\d+", self.dtype)
        each = _BYTES.get(self.dtype, int(bits[0]) / 8 if bits else 0)
        return math.prod(self.dims) * each


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: unique in its computation.
      opcode: such as fusion.
      shapes: of its results.
      operands: names.
      called: computations, by name.
      root: whether it is its computation's result.
      text: what follows the operands.
      inside: the text between the brackets of the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    root: bool
    text: str
    inside: str

    @property
    def op_name(self) -> str:
        """Where in the traced function it comes from."""
        found = _OP_NAME.search(self.text)
        return found[1] if found else ""


@dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: instructions by computation.
      entry: the computation that runs.
    """

    computations: Mapping[str, tuple[Instruction, ...]]
    entry: str


@dataclass(frozen=True)
class Execution:
    """An instruction and how often one call of the program runs it.

    Attributes:
      instruction: what.
      computation: where it stands.
      times: how often.
      fused: whether it stands inside a fusion, whose results stay on the chip.
    """

    instruction: Instruction
    computation: str
    times: float
    fused: bool


# f(condition's limit or None, op_name) -> iterations of a loop without a known count.
Trips = Callable[[int | None, str], float]


def parse_program(text: str) -> Program:
    """Reads `compiled.as_text()`.

    Args:
      text: of a compiled program.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = "", "", list[Instruction]()
    for line in text.splitlines():
        if line.startswith("}"):
            computations[name] = tuple(lines)
            continue
        head = _HEAD.match(line)
        if head is not None:
            name, lines = head[2], []
            entry = name if head[1] else entry
        elif (start := _LINE.match(line)) is not None:
            lines.append(_instruction(start, line[start.end() :]))
    if not entry:
        raise ValueError("a program's text must have an entry, got none")
    return Program(computations, entry)


def _instruction(start: re.Match[str], rest: str) -> Instruction:
    type_end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:type_end], rest[type_end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside, text = rest[opening + 1 : closing - 1], rest[closing:]
    called = tuple(
        name.strip().lstrip("%")
        for found in _CALLED.finditer(text)
        for name in (found[1] or found[2]).split(",")
    )
    return Instruction(
        name=start[2],
        opcode=rest[:opening],
        shapes=tuple(_shape(found) for found in _SHAPE.finditer(kind)),
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
        called=called,
        root=start[1] is not None,
        text=text,
        inside=inside,
    )


def _closing(text: str, opening: int) -> int:
    """The place after the bracket that closes the one at `opening`."""
    depth = 0
    for i in range(opening, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i + 1
    return len(text)


def _shape(found: re.Match[str]) -> Shape:
    dims = tuple(int(n) for n in re.findall(r"\d+", found[2]))
    return Shape(found[1], dims, "S(1)" in (found[3] or ""))


def executions(program: Program, trips: Trips) -> Iterator[Execution]:
    """Every instruction that runs, with its number of runs.

    A loop with a known number of iterations multiplies its body: GPU programs state it,
    in TPU programs it is the constant that the condition compares with.

    Args:
      program: any.
      trips: for loops whose number of iterations the program computes.
    """
    yield from _executions(program, trips, program.entry, 1.0, False)


def _executions(
    program: Program, trips: Trips, name: str, times: float, fused: bool
) -> Iterator[Execution]:
    for x in program.computations.get(name, ()):
        yield Execution(x, name, times, fused)
        inner = times
        if x.opcode == "while":
            inner *= loop_trips(program, x, trips)
        small = x.opcode in _OF_ELEMENTS
        for called in () if small else x.called:
            yield from _executions(
                program, trips, called, inner, fused or x.opcode == "fusion"
            )


def loop_trips(program: Program, loop: Instruction, trips: Trips) -> float:
    """The number of iterations of a while instruction.

    Args:
      program: that holds it.
      loop: the instruction.
      trips: as in `executions`.
    """
    known = _TRIPS.search(loop.text)
    if known is not None:
        return float(known[1])
    condition = re.search(r"condition=%([\w.\-]+)", loop.text)
    lines = program.computations[condition[1]] if condition else ()
    by_name = {x.name: x for x in lines}
    limits = [
        int(x.inside)
        for x in lines
        if x.opcode == "constant" and x.inside.strip().isdigit()
    ]
    root = next((x for x in lines if x.root), None)
    # A fused or plain comparison with one constant, and nothing else to decide.
    simple = root is not None and any(
        by_name[name].opcode == "constant" for name in root.operands if name in by_name
    )
    if simple and len(limits) == 1 and root is not None and root.opcode == "compare":
        return float(limits[0])
    return trips(max(limits, default=None), loop.op_name)
