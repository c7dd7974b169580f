"""Whether a long run stays as it began: memory, open files and the time of a step.

    python experiments/benchmarks/flat_run.py
    python experiments/benchmarks/flat_run.py --steps 500

The tiniest run there is (a toy task, a model of two layers of 16) through the real
loop: guards, warnings, TensorBoard, a checkpoint every 50 steps. Of each hundred steps:
the CPU time of a step without its checkpoint (of the fastest tenth, which others on the
machine disturb least), the resident memory, the open
files and the threads. Compared are the steps from 100 to 200 and the last hundred. The
learning rate is so small that responses stay as long as they are.
"""

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles
from typing import Any

import tyro
from rich.console import Console

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.toys.toy_setup import SETUP, method_learner, sft_policy
from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.rl.rl_loop import train_rl
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.runs.update_guard import UpdateGuard

BLOCK = 100


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
      steps: in all, a multiple of 100.
    """

    steps: int = 2000

    def __post_init__(self) -> None:
        if self.steps < 3 * BLOCK or self.steps % BLOCK:
            raise ValueError(
                f"steps must be a multiple of {BLOCK} and >= {3 * BLOCK}, "
                f"got {self.steps}"
            )


@dataclass(frozen=True)
class Block:
    """A hundred steps.

    Attributes:
      last: its last step.
      step_ms: CPU milliseconds of a step, below which a tenth of them are.
      memory_mib: resident at its end.
      files: open at its end.
      threads: of Python at its end.
    """

    last: int
    step_ms: float
    memory_mib: float
    files: int
    threads: int


class Watch(TrainingProgress):
    """Takes the figures at the end of each step.

    Attributes:
      blocks: finished ones.
    """

    def __init__(self) -> None:
        super().__init__(console=Console(quiet=True))
        self.blocks: list[Block] = []
        self._times: list[float] = []
        self._began = time.process_time()

    def update(
        self, step: int, row: Mapping[str, Any] | None = None, **numbers: Any
    ) -> None:
        """Called by the loop after the row is written, before a checkpoint."""
        super().update(step, row, **numbers)
        now = time.process_time()
        self._times.append(now - self._began)
        if step % BLOCK == 0:
            gc.collect()
            self.blocks.append(
                Block(
                    step,
                    1000 * quantiles(self._times, n=10, method="inclusive")[0],
                    resident_mib(),
                    len(os.listdir("/proc/self/fd")),
                    threading.active_count(),
                )
            )
            self._times.clear()
        self._began = time.process_time()


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(steps: int, folder: Path) -> list[Block]:
    """The figures of a run.

    Args:
      steps: of the run.
      folder: for what it leaves.
    """
    still = replace(SETUP, optimizer=OptimizerSettings(learning_rate=1e-9))
    learner = method_learner(grpo(kl_coef=0), still)
    learner = replace(learner, settings=replace(learner.settings, steps=steps))
    state = init_rl_state(learner, sft_policy(SETUP, 0))
    problems = EndlessProblems(SETUP.settings.prompts_per_step)
    progress = Watch()
    with GracefulInterrupt() as interrupt, progress, MetricsLog(folder) as log:
        hooks = Hooks(
            log=log,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
            fingerprint={},
            progress=progress,
            interrupt=interrupt,
            save_every=50,
            guard=UpdateGuard(3, folder),
            warnings=RunWarnings(tell=lambda text: None),
        )
        train_rl(learner, state, problems, hooks)
    return progress.blocks


def change(blocks: list[Block], name: str) -> float:
    """The last block's figure against the second's, as a fraction."""
    first, last = (float(getattr(blocks[i], name)) for i in (1, -1))
    return last / first - 1


def main(options: Options) -> list[Block]:
    """Runs, and prints the table.

    Args:
      options: of the run.

    Returns:
      The figures.
    """
    with tempfile.TemporaryDirectory() as folder:
        blocks = run(options.steps, Path(folder))
    print("| steps to | CPU ms a step | memory, MiB | open files | threads |")
    print("|---|---|---|---|---|")
    for b in blocks:
        print(
            f"| {b.last} | {b.step_ms:.2f} | {b.memory_mib:.1f} | {b.files} | "
            f"{b.threads} |"
        )
    names = ("step_ms", "memory_mib", "files", "threads")
    changes = [f"{name} {change(blocks, name):+.1%}" for name in names]
    print(f"from step 200 to {options.steps}: {', '.join(changes)}")
    return blocks


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
