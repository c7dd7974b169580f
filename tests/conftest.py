"""What every test shares: JAX's settings, virtual devices, the optional shared data."""

import gc
import json
import os
import subprocess
import sys
import textwrap
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


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    """Closes the figures that a test left open; does not import matplotlib itself."""
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
