"""What runs inside a sandbox: a program, and expressions that call it.

This file is given as text to a Python in the sandbox, which imports nothing else of the
library. Outside, only `encode` and `decode` are used. The program shares its process
with this file and may break or forge everything here: what comes out are values to
compare, and neither verdicts nor expected values ever come in.
"""

import io
import json
import os
import sys
import types
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

READY = b"ready\n"  # written before the program runs
MARK = "value "
MAX_DEPTH = 64
MAX_NODES = 200_000
_SEQUENCES: dict[Any, str] = {list: "l", tuple: "u", set: "e", frozenset: "z"}
_BUILDERS: dict[str, Any] = {name: kind for kind, name in _SEQUENCES.items()}


class NotPlain(ValueError):
    """A value is not made of numbers, text and containers, or is too large."""


def encode(value: Any) -> Any:
    """A value as JSON of plain parts, whatever its class says of itself.

    A subclass is taken as its plain base: an int whose `__eq__` always agrees becomes
    an int.

    Args:
      value: made of None, bool, int, float, complex, Fraction, Decimal, str, bytes,
        list, tuple, set, frozenset and dict.

    Returns:
      Lists of a tag and the content.

    Raises:
      NotPlain: it has other parts, or is too deep or too large.

    Example:
      >>> encode([1, "a"])
      ['l', [['i', '0x1'], ['s', 'a']]]
    """
    return _encode(value, 0, [MAX_NODES])


def _encode(value: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0:
        raise NotPlain("too deep or too large")
    kinds = type.mro(type(value))
    if value is None or value is True or value is False:
        return ["k", str(value)]
    for kind, tag in _SEQUENCES.items():
        if kind in kinds:
            parts = [_encode(x, depth + 1, left) for x in kind.__iter__(value)]
            return [tag, parts]
    if dict in kinds:
        each: Any = dict.items(value)
        return ["d", [[_encode(x, depth + 1, left) for x in pair] for pair in each]]
    return _encode_scalar(value, kinds)


def _encode_scalar(value: Any, kinds: list[type]) -> list[str]:
    if int in kinds:
        return ["i", hex(int.__index__(value))]
    if float in kinds:
        return ["f", float.hex(value)]
    if complex in kinds:
        both = complex.__pos__(value)
        return ["c", both.real.hex(), both.imag.hex()]
    if str in kinds:
        return ["s", "".join(str.__iter__(value))]
    if bytes in kinds or bytearray in kinds:
        return ["b", bytes.hex(bytes(memoryview(value)))]
    if Fraction in kinds:
        exact = Fraction.__pos__(value)
        return ["q", hex(exact.numerator), hex(exact.denominator)]
    if Decimal in kinds:
        return ["m", Decimal.__str__(value)]
    raise NotPlain("not a plain value")


def decode(coded: Any) -> Any:
    """The value of `encode`, all of it new and of builtin classes.

    Args:
      coded: JSON, which anybody may have written.

    Returns:
      The value.

    Raises:
      NotPlain: it is not of the form that `encode` writes.

    Example:
      >>> decode(encode({"a": (1, 2.5)}))
      {'a': (1, 2.5)}
    """
    try:
        return _decode(coded)
    except Exception as error:  # whatever was written
        raise NotPlain(f"not a value: {error}") from None


def _decode(coded: Any) -> Any:
    tag, *content = coded
    if tag in _BUILDERS:
        return _BUILDERS[tag](_decode(x) for x in content[0])
    if tag == "d":
        return {_decode(key): _decode(value) for key, value in content[0]}
    if tag == "i":
        return int(content[0], 16)
    if tag == "f":
        return float.fromhex(content[0])
    if tag == "c":
        return complex(float.fromhex(content[0]), float.fromhex(content[1]))
    if tag == "s":
        return str(content[0])
    if tag == "b":
        return bytes.fromhex(content[0])
    if tag == "q":
        return Fraction(int(content[0], 16), int(content[1], 16))
    if tag == "m":
        return Decimal(content[0])
    known = {"None": None, "True": True, "False": False}
    if tag != "k" or content[0] not in known:
        raise NotPlain(f"not a value: {tag!r}")
    return known[content[0]]


def confine(limits: Mapping[str, int], user: int | None) -> None:
    """Gives up rights for good, in a process of its own.

    Args:
      limits: names of `resource` without RLIMIT_, each a hard limit.
      user: number of the user to become; None to stay.
    """
    import resource

    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def run_script(program: str) -> None:
    """Runs a program as a script: standard input to standard output."""
    module = _module("__main__")
    exec(compile(program, "program", "exec"), module.__dict__)  # noqa: S102


def write_values(program: str, steps: list[list[str]], values: list[Any]) -> None:
    """Runs a program, then statements and expressions; writes a line for each value.

    Args:
      program: the text.
      steps: pairs of "run" and a statement or "value" and an expression. A statement
        that raises is the last step.
      values: coded, named _v0, _v1, ... in the program and the steps.
    """
    write = os.write
    # What the program prints is not a result.
    sys.stdout = sys.stderr = io.TextIOWrapper(_Sink(), errors="replace")
    names = _module("solution").__dict__
    names.update({f"_v{i}": decode(value) for i, value in enumerate(values)})
    exec(compile(program, "program", "exec"), names)  # noqa: S102
    number = 0
    for kind, text in steps:
        if kind == "run":
            exec(compile(text, "test", "exec"), names)  # noqa: S102
            continue
        try:
            said = encode(eval(compile(text, "test", "eval"), names))  # noqa: S307
        except Exception as error:
            said = ["error", type(error).__name__]
        line = memoryview(f"{MARK}{number} {json.dumps(said)}\n".encode())
        number += 1
        while line:
            line = line[write(1, line) :]


def _module(name: str) -> types.ModuleType:
    """A module for the program, so that classes find where they were made."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    return module


class _Sink(io.RawIOBase):
    """Takes everything and keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def main(job: Mapping[str, Any]) -> None:
    """Runs a job; a program that raises ends with status 1.

    Args:
      job: `program`, `steps` and `values`; in a process of its own also `limits` and
        `user`.
    """
    sys.argv = ["program"]
    if "limits" in job:
        confine(job["limits"], job["user"])
    os.write(1, READY)
    if job["steps"] is None:
        run_script(job["program"])
    else:
        write_values(job["program"], job["steps"], job["values"])
        os._exit(0)  # no handlers, no threads


def read_job() -> dict[str, Any]:
    """The job: the argument, or the first line of standard input.

    The rest of the input is left to the program.
    """
    if len(sys.argv) > 1:
        return dict(json.loads(sys.argv[1]))
    with open(0, "rb", closefd=False) as file:
        line = file.readline()
    os.lseek(0, len(line), os.SEEK_SET)
    return dict(json.loads(line))


if __name__ == "__main__":
    main(read_job())
