"""Which functions and files of this library one DAPO iteration passes through.

    python experiments/benchmarks/trace_iteration.py
    python experiments/benchmarks/trace_iteration.py --list

A tiny model, a toy task, the real loop on one device. Counted with `sys.setprofile`:
once in a first iteration, in which JAX traces everything that it compiles (model,
sampler, loss, optimiser step), and once in a later one, which runs what is compiled.
A function counts once however often it is called; comprehensions, generator expressions
and lambdas belong to the function that they are written in.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.toys.toy_setup import SETUP, ToySetup, method_learner, sft_policy
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.runs.metrics_log import PhaseTimer

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = tuple(ROOT / name for name in ("jaxrl_reason", "losses", "sharding"))
INNER = ("<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<lambda>")

# File -> functions by their qualified names.
Passed = dict[str, set[str]]


@dataclass(frozen=True)
class Options:
    """What is printed."""

    list: bool = False
    """The functions of each file too."""


def record(run: Callable[[], Any]) -> Passed:
    """The functions of this library that a call passes through, by file."""
    passed: Passed = defaultdict(set)
    known: dict[str, str | None] = {}

    def name_of(path: str) -> str | None:
        if path not in known:
            file = Path(path).resolve()
            ours = any(folder in file.parents for folder in FOLDERS)
            known[path] = str(file.relative_to(ROOT)) if ours else None
        return known[path]

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name in INNER:
            return
        file = name_of(code.co_filename)
        if file is not None:
            passed[file].add(code.co_qualname)

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return passed


def dapo_iterations(setup: ToySetup = SETUP) -> tuple[Passed, Passed]:
    """What a first iteration of DAPO passes through, and a later one."""
    limit = setup.settings.max_new_tokens
    method = dapo(DapoSettings(overlong_cache=3), max_new_tokens=limit)
    learner = method_learner(method, setup)
    state = init_rl_state(learner, sft_policy(setup, 0))
    problems, timer = EndlessProblems(setup.settings.prompts_per_step), PhaseTimer()

    def step() -> None:
        nonlocal state
        state, _, _ = rl_iteration(learner, state, problems, timer)

    first = record(step)
    step()  # buffers that the first step made may still compile something
    return first, record(step)


def report(title: str, passed: Passed, *, functions: bool) -> None:
    """Prints the counts, and the files with theirs."""
    total = sum(map(len, passed.values()))
    print(f"{title}: {total} functions in {len(passed)} files")
    for file, names in sorted(passed.items(), key=lambda item: -len(item[1])):
        print(f"  {len(names):3d}  {file}")
        if functions:
            print("       " + "\n       ".join(sorted(names)))


def main() -> None:
    """Runs the script."""
    options = tyro.cli(Options, description=__doc__)
    first, later = dapo_iterations()
    report("with tracing", first, functions=options.list)
    report("compiled", later, functions=options.list)


if __name__ == "__main__":
    main()
