"""A place where a model's program may run: bubblewrap, WebAssembly, or a refusal."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jaxrl_reason.grading import sandbox_program

# The source that runs inside.
PROGRAM = Path(sandbox_program.__file__).read_text("utf-8")
# To start Python, which is not the program's time.
START_SECONDS = 30.0
# How a run ended.
ENDED, RAISED, LATE, FLOODED = "ended", "raised", "late", "flooded"


class SandboxError(ValueError):
    """There is no sandbox here, or it did not start; not the fault of a program."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one run may use.

    Attributes:
      seconds: of wall-clock time, from where Python has started.
      memory_bytes: of the address space of each process; in WebAssembly in all.
      output_bytes: on standard output; a run with more is stopped.
      processes: processes and threads; WebAssembly has one.
      file_bytes: of files, which are in memory and vanish after the run; WebAssembly
        has none.

    Raises:
      ValueError: one is not above 0.
    """

    seconds: float = 6.0
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 2**20
    processes: int = 4
    file_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"sandbox {name} must be > 0, got {value}")


@dataclass(frozen=True)
class SandboxJob:
    """A program to run, as a script or for the values of expressions.

    Attributes:
      program: Python source.
      stdin: standard input of a script.
      steps: statements ("run", text) and expressions ("value", text) that follow the
        program; None for a script.
      values: _v0, _v1, ... of the steps, as `sandbox_program.encode` writes them.
    """

    program: str
    stdin: str = ""
    steps: tuple[tuple[str, str], ...] | None = None
    values: tuple[Any, ...] = field(default=(), hash=False)


@dataclass(frozen=True)
class SandboxRun:
    """What a run left.

    Attributes:
      output: bytes of standard output.
      how: "ended"; "raised", also for a process that was killed; "late"; "flooded".
    """

    output: bytes
    how: str


class Sandbox(Protocol):
    """Runs programs that nobody trusts."""

    @property
    def name(self) -> str:
        """For reports."""

    def run(self, job: SandboxJob) -> SandboxRun:
        """Runs one program; may be called from several threads at once."""


def finished(name: str, output: bytes, how: str) -> SandboxRun:
    """A run from what came out of the sandbox.

    Args:
      name: of the sandbox.
      output: all that was written.
      how: it ended.

    Raises:
      SandboxError: the program was never started.
    """
    if not output.startswith(sandbox_program.READY):
        raise SandboxError(f"{name} must start a program, got none: {how}")
    return SandboxRun(output.removeprefix(sandbox_program.READY), how)


def open_sandbox(kind: str = "auto", limits: SandboxLimits | None = None) -> Sandbox:
    """The sandbox of this machine; a trial run shows that it works.

    Args:
      kind: "bubblewrap", "wasm", or "auto" for the first of the two that works.
      limits: of each run.

    Raises:
      SandboxError: there is none; the message says what to install.
      ValueError: there is no such kind.
    """
    # Each imports this module.
    from jaxrl_reason.grading.bubblewrap import Bubblewrap
    from jaxrl_reason.grading.wasm_python import WasmPython

    kinds: dict[str, Any] = {"bubblewrap": Bubblewrap, "wasm": WasmPython}
    if kind not in ("auto", *kinds):
        raise ValueError(f"sandbox must be auto, bubblewrap or wasm, got {kind!r}")
    reasons = []
    for name in kinds if kind == "auto" else [kind]:
        try:
            found: Sandbox = kinds[name](limits or SandboxLimits())
            check_sandbox(found)
            return found
        except SandboxError as error:
            reasons.append(str(error))
    raise SandboxError(f"code must run in a sandbox, got none: {'; '.join(reasons)}")


def check_sandbox(sandbox: Sandbox) -> None:
    """A trial run.

    Args:
      sandbox: to try.

    Raises:
      SandboxError: it does not run programs.
    """
    ran = sandbox.run(SandboxJob("print(6 * 7)"))
    if ran != SandboxRun(b"42\n", ENDED):
        raise SandboxError(f"{sandbox.name} must run a program, got {ran}")
