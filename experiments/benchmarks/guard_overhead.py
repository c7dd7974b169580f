"""What the guards of a run cost: the same Countdown step with and without them.

    python experiments/benchmarks/guard_overhead.py
    python experiments/benchmarks/guard_overhead.py --pairs 20

The guards: updates and the sampler's log-probs are checked for nan, models before they
are saved; rows are looked at for warnings; each grade has a deadline. One process makes
the same step (the same state, problems and draws) with and without them in turn, row
and checkpoint included, and takes the CPU time of all its threads. The first pair
compiles and is left out. Where others use the machine, such a difference is no more
than its noise, so the guards' own CPU time is taken too, inside the same steps.

The step is that of the preset countdown, by grpo from an untrained model.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import tyro
from rich.console import Console

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.grading import deadline
from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl import collect, rl_loop
from jaxrl_reason.rl.rl_learner import RLLearner
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.runs.update_guard import UpdateGuard
from jaxrl_reason.tasks import grade_responses
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.reinforcement import Reinforcement
from jaxrl_reason.train.run_setup import RunSetup, build_run_setup
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      pairs: steps with and without guards, besides the first of each.
      dataset_dir: cache of countdown's prepared problems.
    """

    pairs: int = 10
    dataset_dir: Path = Path("runs/datasets")


@dataclass(frozen=True)
class Found:
    """CPU seconds of a step.

    Attributes:
      guarded: of each step with guards.
      plain: of each without.
      inside: of the guards alone, in each step with them.
    """

    guarded: list[float]
    plain: list[float]
    inside: list[float]

    @property
    def overhead(self) -> float:
        """The median of the pairs' differences, as a fraction of a plain step."""
        pairs = zip(self.guarded, self.plain, strict=True)
        return median(a - b for a, b in pairs) / median(self.plain)


def noise(seconds: list[float]) -> float:
    """The median difference of steps that follow each other, as a fraction."""
    steps = pairwise(seconds)
    return median(abs(a - b) for a, b in steps) / median(seconds)


class Clock:
    """Adds up the CPU seconds of calls.

    Attributes:
      seconds: so far, of this thread.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are timed.

        Args:
          function: any.
        """

        def call(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self.seconds += time.thread_time() - began

        return call


class Step:
    """One step of a run that starts again each time.

    Args:
      setup: of the run.
    """

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup
        self.stage = Reinforcement(setup)
        self.policy: TrainState = setup.built.init(setup.settings.sft_schedule())
        self.learner: RLLearner = replace(
            self.stage.learner, settings=replace(self.stage.learner.settings, steps=1)
        )

    def seconds(self, path: Path, **guards: Any) -> float:
        """CPU seconds of the step, with its row and its checkpoint.

        Args:
          path: an empty folder.
          **guards: fields of Hooks.
        """
        problems = ProblemStream(
            list(self.setup.problems.train),
            batch_size=self.learner.settings.prompts_per_step,
            seed=0,
        )
        state = self.stage.begin(self.policy)
        quiet = Console(quiet=True)
        with (
            GracefulInterrupt() as interrupt,
            TrainingProgress(console=quiet) as progress,
            MetricsLog(path) as log,
        ):
            hooks = Hooks(
                log=log,
                checkpoints=CheckpointFolder(path / "checkpoints"),
                fingerprint={},
                progress=progress,
                interrupt=interrupt,
                save_every=1,
                **guards,
            )
            began = time.process_time()
            rl_loop.train_rl(self.learner, state, problems, hooks)
            return time.process_time() - began


@contextmanager
def unguarded() -> Iterator[None]:
    """A block without the guards that are always on."""

    def called(function: Any, jobs: Any, seconds: float) -> list[Any]:
        return [deadline.outcome_of(function, job) for job in jobs]

    def nothing(*given: Any) -> None:
        """Checks nothing."""

    with ExitStack() as stack:
        for module, name, instead in (
            (grade_responses, "call_each", called),
            (collect, "check_logprobs", nothing),
            (rl_loop, "check_finite", nothing),
        ):
            stack.enter_context(patch.object(module, name, instead))
        yield


@contextmanager
def timed(clock: Clock) -> Iterator[None]:
    """A block in which the guards are timed; grading itself does not count."""
    plain = deadline.call_each

    def called(function: Any, jobs: Any, seconds: float) -> list[Any]:
        grading = Clock()
        found = clock.timed(plain)(grading.timed(function), jobs, seconds)
        clock.seconds -= grading.seconds
        return found

    with ExitStack() as stack:
        stack.enter_context(patch.object(grade_responses, "call_each", called))
        for place, name in (
            (collect, "check_logprobs"),
            (rl_loop, "check_finite"),
            (UpdateGuard, "check"),
            (RunWarnings, "look"),
        ):
            guard = clock.timed(getattr(place, name))
            stack.enter_context(patch.object(place, name, guard))
        yield


def measure(step: Step, pairs: int, folder: Path) -> Found:
    """Steps with and without guards in turn.

    Args:
      step: to make.
      pairs: of measured steps.
      folder: for what the steps leave.
    """
    history = [{"step": i, "policy/loss": 0.01 * (i % 7)} for i in range(60)]
    found = Found([], [], [])
    for i in range(pairs + 1):
        clock = Clock()

        def with_guards(clock: Clock = clock, path: Path = folder / f"{i}-on") -> float:
            guard = UpdateGuard(3, folder)
            warnings = RunWarnings(rows=history, tell=lambda text: None)
            with timed(clock):
                return step.seconds(path, guard=guard, warnings=warnings)

        def without(path: Path = folder / f"{i}-off") -> float:
            with unguarded():
                return step.seconds(path)

        # In turn, so that what drifts on the machine favours neither.
        if i % 2:
            guarded, plain = with_guards(), without()
        else:
            plain, guarded = without(), with_guards()
        if i:  # the first compiles
            found.guarded.append(guarded)
            found.plain.append(plain)
            found.inside.append(clock.seconds)
    return found


def countdown(dataset_dir: Path) -> TrainSettings:
    """The preset's sizes, without fine-tuning and without refills."""
    preset = PRESETS["countdown"]
    sft = replace(preset.sft, updates=0)
    return replace(preset, method="grpo", sft=sft, dataset_dir=dataset_dir)


def main(options: Options) -> Found:
    """Measures, and prints the result.

    Args:
      options: of the measurement.

    Returns:
      The seconds.
    """
    step = Step(build_run_setup(countdown(options.dataset_dir)))
    with tempfile.TemporaryDirectory() as folder:
        found = measure(step, options.pairs, Path(folder))
    print(f"CPU seconds of a step, median of {options.pairs}:")
    print(f"  with guards     {median(found.guarded):.3f}")
    print(f"  without         {median(found.plain):.3f}")
    print(
        f"  difference      {found.overhead:+.2%} (median of the pairs; steps alike "
        f"differ by {noise(found.plain):.2%})"
    )
    inside = median(found.inside)
    print(
        f"  guards alone    {inside:.4f} ({inside / median(found.plain):.2%} of a step)"
    )
    return found


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
