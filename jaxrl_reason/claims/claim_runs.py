"""The runs of a claim: every arm with every seed, each kept in a file once finished."""

import functools
import inspect
import json
import math
import multiprocessing
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxrl_reason import __version__
from jaxrl_reason.claims.claim import FoundClaim, load_claim
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.progress import TrainingProgress


@dataclass(frozen=True)
class ArmRun:
    """One finished run.

    Attributes:
      rows: of its steps; a number that is not finite is left out.
      cpu_seconds: of this process and its threads, what was compiled included.
      version: of the library.
    """

    rows: Sequence[Row]
    cpu_seconds: float
    version: str


# Arm -> seed -> run.
Runs = Mapping[str, Mapping[int, ArmRun]]


@dataclass(frozen=True)
class RunPlan:
    """Which runs of a claim are wanted, and where they are kept.

    Attributes:
      found: the claim.
      arms: names.
      seeds: numbers.
      steps: of a run.
      out: folder of all claims' runs.
    """

    found: FoundClaim
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    out: Path

    @property
    def folder(self) -> Path:
        """One for each state of the code, so that a changed claim reuses nothing."""
        state = f"{self.found.code_key}-{self.steps}steps"
        return self.out / self.found.name / state

    def file(self, arm: str, seed: int) -> Path:
        """Of a finished run."""
        return self.folder / f"{slug(arm)}-seed{seed}.json"

    def missing(self) -> list[tuple[int, str]]:
        """Seed and arm of each run that is not finished."""
        return [
            (seed, arm)
            for seed in self.seeds
            for arm in self.arms
            if not self.file(arm, seed).is_file()
        ]


def slug(text: str) -> str:
    """A name for files: letters, digits and dots, dashes between."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()


def run_arms(plan: RunPlan, jobs: int = 1) -> Runs:
    """Runs what is missing, shows the progress and reads everything.

    A killed call goes on where it stopped. The arms of a seed run in one process, where
    they share the model that they start from; a process keeps what it has compiled.

    Args:
      plan: which runs.
      jobs: processes; with 1, all in this one.

    Returns:
      The runs.

    Raises:
      ValueError: `jobs` is below 1, or two arms have one file name.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be >= 1, got {jobs}")
    if len({slug(arm) for arm in plan.arms}) < len(plan.arms):
        raise ValueError(
            f"names of arms must differ in letters or digits, got {plan.arms}"
        )
    plan.folder.mkdir(parents=True, exist_ok=True)
    missing = plan.missing()
    total = len(plan.seeds) * len(plan.arms)
    done = total - len(missing)
    with TrainingProgress() as progress:
        if missing:
            progress.stage(plan.found.name, total, start=done)
        if jobs == 1:
            for seed, arm in missing:
                run_one(plan, arm, seed)
                done += 1
                progress.update(done)
        elif missing:
            for arms in _in_processes(plan, missing, jobs):
                done += arms
                progress.update(done)
    return {
        arm: {seed: read_run(plan.file(arm, seed)) for seed in plan.seeds}
        for arm in plan.arms
    }


def _in_processes(plan: RunPlan, missing: Sequence[tuple[int, str]], jobs: int) -> Any:
    """Yields the number of runs of each seed that is through."""
    spawn = multiprocessing.get_context("spawn")  # a fork of JAX's threads hangs
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        seeds = sorted({seed for seed, _ in missing})
        waiting = {}
        for seed in seeds:
            arms = [arm for s, arm in missing if s == seed]
            given = (str(plan.found.path), plan.found.code_key, arms, seed)
            future = pool.submit(_run_seed, *given, plan.steps, plan.out)
            waiting[future] = len(arms)
        for future in as_completed(waiting):
            future.result()
            yield waiting[future]


_found = functools.cache(load_claim)  # once a process: it holds what is compiled


def _run_seed(
    path: str, key: str, arms: Sequence[str], seed: int, steps: int, out: Path
) -> None:
    found = _found(path)
    if found.code_key != key:
        raise ValueError(f"{path} must not change while it runs, but it did")
    plan = RunPlan(found, tuple(arms), (seed,), steps, out)
    for arm in arms:
        run_one(plan, arm, seed)


def run_one(plan: RunPlan, arm: str, seed: int) -> None:
    """Runs one arm with one seed and writes its file.

    Args:
      plan: holds the claim.
      arm: name.
      seed: number.

    Raises:
      ValueError: the arm gave no rows.
    """
    began = time.process_time()
    run_arm, more = plan.found.claim.run_arm, {}
    if "folder" in inspect.signature(run_arm).parameters:
        more["folder"] = plan.folder
    rows = run_arm(arm, seed, plan.steps, **more)
    if not rows:
        raise ValueError(f"run_arm must give rows, got none for {arm}, seed {seed}")
    content = {
        "arm": arm,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - began, 2),
        "version": __version__,
        "rows": [_finite(row) for row in rows],
    }
    atomic_write(plan.file(arm, seed), json.dumps(content, allow_nan=False))


def _finite(row: Row) -> Row:
    """The numbers that JSON has, as Python's own."""
    own = {name: x if type(x) is int else float(x) for name, x in row.items()}
    return {name: x for name, x in own.items() if math.isfinite(x)}


def read_run(path: Path) -> ArmRun:
    """A finished run from its file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return ArmRun(content["rows"], content["cpu_seconds"], content["version"])
