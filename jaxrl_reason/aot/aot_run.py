"""All steps of a run compiled, and other settings tried where they do not fit."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from jaxrl_reason.aot.compile_step import CompiledStep, CompileRequest, compile_step
from jaxrl_reason.aot.mesh_sizes import own_devices
from jaxrl_reason.aot.nearest import simpler
from jaxrl_reason.aot.run_steps import check_run
from jaxrl_reason.aot.search import Candidate, candidates
from jaxrl_reason.aot.topology import Topology, check_installed
from jaxrl_reason.aot.verdict import Verdict, expected_speed
from jaxrl_reason.train.devices import check_sizes, devices_of
from jaxrl_reason.train.train_settings import TrainSettings

# A compilation of a 32B step was seen to hold 9 GB.
_BYTES_EACH = 10e9
_MEMORY = Path("/proc/meminfo")


def compile_run(
    settings: TrainSettings,
    topology: Topology,
    steps: Sequence[str],
    effort: str = "default",
) -> Verdict:
    """Compiles steps of a run, and says whether they fit.

    Args:
      settings: of the run.
      topology: the devices.
      steps: of `STEPS`.
      effort: of the compiler, as in `CompileRequest`.

    Raises:
      ValueError: settings, model, mesh and topology do not fit together, or the
        platform's compiler is not installed.
    """
    check_run(settings)
    check_installed(topology.chip.platform)
    check_mesh(settings, topology)
    requests = [CompileRequest(settings, topology, step, effort) for step in steps]
    return Verdict(settings, topology, tuple(compile_all(requests)))


def check_mesh(settings: TrainSettings, topology: Topology) -> None:
    """Raises for a mesh, or two, of another number of devices than there are."""
    own = own_devices(settings)
    if settings.mesh == "auto" and not own:
        return
    check_sizes(settings.mesh, bool(own))
    wanted = devices_of(settings.mesh) + own
    if wanted != topology.num_devices:
        sampler = f" and sampler.mesh {settings.sampler.mesh}" if own else ""
        raise ValueError(
            f"mesh {settings.mesh}{sampler} must have the {topology.num_devices} "
            f"devices of {topology}, got {wanted}"
        )


def compile_all(requests: Sequence[CompileRequest]) -> list[CompiledStep]:
    """Compiles, two at a time where cores and memory allow.

    Args:
      requests: what.
    """
    with ThreadPoolExecutor(at_a_time()) as pool:
        return list(pool.map(compile_step, requests))


def at_a_time() -> int:
    """1 or 2 compilations."""
    free = _BYTES_EACH
    if _MEMORY.is_file():
        lines = _MEMORY.read_text().splitlines()
        kib = next(x.split()[1] for x in lines if x.startswith("MemAvailable"))
        free = int(kib) * 1024
    return max(1, min(2, os.cpu_count() or 1, int(free // _BYTES_EACH)))


def search_run(
    settings: TrainSettings,
    topology: Topology,
    tries: int,
    effort: str = "default",
) -> list[tuple[Candidate, CompiledStep]]:
    """Compiles the update of the most promising settings and ranks them.

    Args:
      settings: of the run; its mesh, remat and micro-batch are varied.
      topology: the devices.
      tries: how many are compiled.
      effort: of the compiler.

    Returns:
      Those that compile, those that fit first, the quickest first.
    """
    check_run(settings)
    check_installed(topology.chip.platform)
    chosen = candidates(settings, topology)[:tries]
    requests = [CompileRequest(x.settings, topology, "update", effort) for x in chosen]
    found = list(zip(chosen, compile_all(requests), strict=True))
    return sorted(
        found, key=lambda x: (not x[1].fits, -_tokens(x[1], topology), x[1].peak)
    )


def _tokens(step: CompiledStep, topology: Topology) -> float:
    return expected_speed(step, topology.chip).tokens[0] if step.fits else 0.0


def with_nearest(verdict: Verdict, tries: int) -> Verdict:
    """The verdict with the nearest settings that fit, where its own do not.

    Args:
      verdict: of settings that may not fit.
      tries: how many are compiled at most.
    """
    if verdict.fits:
        return verdict
    worst = max(verdict.steps, key=lambda step: step.held)
    options: Iterator[tuple[str, TrainSettings, Topology]] = simpler(
        verdict.settings, verdict.topology, worst.step
    )
    for _, (words, settings, topology) in zip(range(tries), options, strict=False):
        print(f"does not fit; trying {words}", file=sys.stderr)
        found = compile_step(CompileRequest(settings, topology, worst.step))
        if found.fits:
            peak = f"{found.peak / 1e9:.2f} GB"
            return replace(
                verdict, nearest=f"nearest that fits: {words} ({found.step}: {peak})"
            )
    return replace(verdict, nearest=f"none of {tries} nearer settings fits either")
