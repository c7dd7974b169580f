"""The compilations, the memory and the software versions of a run."""

import contextlib
import importlib.metadata
import platform
import sys
from pathlib import Path

import jax
import jax.monitoring

# Recorded for every request for an executable, also one that the persistent compilation
# cache answers, so a warm cache does not hide recompilations.
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "chex",
    "numpy",
    "grain",
    "tensorflow-datasets",
    "array_record",
    "sentencepiece",
    "tensorboardX",
)


class CompileCounter:
    """Counts XLA compilations in this process while it is open.

    After the first steps a training loop compiles nothing; a count that keeps rising
    means that some shape or static argument changes from step to step.

    >>> with CompileCounter() as counter:
    ...     mark = counter.count
    ...     _ = jax.jit(lambda x: x + 1)(jax.numpy.zeros(3))
    >>> counter.since(mark) > 0
    True
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self.seconds = 0.0
        self._open = False
        self.start()

    @property
    def count(self) -> int:
        """Compilations since the counter was made."""
        return len(self._names)

    def since(self, mark: int) -> int:
        """Compilations since `count` was `mark`."""
        return self.count - mark

    def names_since(self, mark: int) -> list[str]:
        """Names of the functions compiled since `count` was `mark`."""
        return self._names[mark:]

    def start(self) -> None:
        """Starts (or restarts) counting."""
        if not self._open:
            jax.monitoring.register_event_duration_secs_listener(self._listen)
            self._open = True

    def close(self) -> None:
        """Stops counting; the counts stay. May be called twice."""
        if self._open:
            jax.monitoring.unregister_event_duration_listener(self._listen)
            self._open = False

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILE_EVENT:
            self._names.append(str(kwargs.get("fun_name", "?")))
            self.seconds += duration_secs

    def __enter__(self) -> "CompileCounter":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def peak_memory_bytes() -> int:
    """The peak memory of this process so far (resident set), in bytes.

    0 if the system does not report it (Windows).
    """
    # On Linux a new program inherits ru_maxrss from its parent, but not VmHWM.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * _maxrss_unit(sys.platform)


def _maxrss_unit(system: str) -> int:
    """Bytes per unit of ru_maxrss: bytes on macOS, kilobytes elsewhere."""
    return 1 if system == "darwin" else 1024


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("jaxrl_reason", *_PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if "jaxrl_reason" not in found:  # run from a checkout, not installed
        from jaxrl_reason import __version__

        found["jaxrl_reason"] = __version__
    return found
