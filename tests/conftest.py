"""What every test shares: JAX's settings, virtual devices, the optional shared data."""

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before jax is imported: tests run on the CPU unless somebody asks for a device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, and code that runs once need not be quick:
# unoptimised, on one thread and by the older emitters XLA compiles a loss in a sixth of
# the time. Subprocesses inherit it. XLA aborts at a flag that it does not know, so the
# last two are for the jaxlib in which they were tried.
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    if version("jaxlib").startswith("0.10."):
        flags.append("--xla_cpu_parallel_codegen_split_count=1")
        flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

import jax
import pytest

# A [B, T] array times a [B] array broadcasts silently when T == B; here it raises.
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
# Linux allows a process 65,530 mappings, and every compiled program holds some: the
# compiler aborts at the limit, which the whole suite in one process would reach.
MAPPINGS = Path("/proc/self/maps")
MANY_MAPPINGS = 30_000


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kills N`: how often tests/rl/test_rl_resume.py kills a run at random."""
    parser.addoption("--kills", type=int, default=5, help="random kills of toy runs")


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Forgets compiled programs after a module, once a process has many of them."""
    yield
    if MAPPINGS.is_file() and MAPPINGS.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """Finds a file of the shared data, ``shared_file("reference/x")``, or skips."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip("shared data is absent")
        return path

    return find


@pytest.fixture(scope="session")
def eight_devices_run() -> Callable[..., Any]:
    """Runs the text of a script in a new process that has 8 virtual CPU devices.

    ``eight_devices_run(script, *arguments, timeout=240)`` dedents the script, runs it
    in the repository's root with warnings as errors and returns the last line that it
    printed, read as JSON. A script that fails shows its error output.
    """
    return _run_on_eight_devices


def _run_on_eight_devices(script: str, *arguments: str, timeout: float = 240) -> Any:
    flags = os.environ.get("XLA_FLAGS", "")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8".strip(),
        # Collectives of several steps in flight can wait for each other for ever.
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    if "Involuntary full rematerialization" in done.stderr:
        pytest.fail(f"an array is held whole on every device:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def processes_run() -> Callable[..., Any]:
    """Runs the text of a script in several processes that are one run.

    ``processes_run(script, count, *arguments, devices=1, timeout=240)`` dedents the
    script and starts it ``count`` times at once, each with that many CPU devices. It
    finds `index`, `count` and `arguments`, and joins the others in ``with join():``.
    Returns the processes in their order, those still running with no returncode.
    """
    return _run_processes


JOIN = """
import contextlib, sys
from jaxrl_reason.sharding.lifetime import joined
address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
arguments = sys.argv[4:]
def join(**limits):
    alone = contextlib.nullcontext()
    return alone if count == 1 else joined(address, count, index, **limits)
"""


def _run_processes(
    script: str, count: int, *arguments: str, devices: int = 1, timeout: float = 240
) -> list[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    text = JOIN + textwrap.dedent(script)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outputs, started = [], []
        for index in range(count):
            paths = [folder / f"{index}.{name}" for name in ("out", "err")]
            out, err = (stack.enter_context(path.open("w")) for path in paths)
            argv = [sys.executable, "-c", text, address, str(count), str(index)]
            process = subprocess.Popen(
                [*argv, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=err
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
            outputs.append(paths)
        end = time.monotonic() + timeout
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in started:
                process.wait(max(0.0, end - time.monotonic()))
        return [
            subprocess.CompletedProcess(
                process.args, process.poll(), *(path.read_text() for path in paths)
            )
            for process, paths in zip(started, outputs, strict=True)
        ]


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    """Closes the figures that a test left open; does not import matplotlib itself."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
