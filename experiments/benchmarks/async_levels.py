"""What drawing rollouts ahead saves: the main job's RL steps, synchronous and not.

    python experiments/benchmarks/async_levels.py --sft-from runs/countdown-dapo-seed0

Runs of the preset `countdown` from one fine-tuned model, with `rl.async_level` 0 and 1
in turns, each pair in the other order. Prints seconds per step after the first two (in
which JAX compiles), their ratio for each pair, the share of the step in which the
trainer waited, and the held-out accuracy: the same number of steps, not of seconds.
"""

import dataclasses
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.runs.metrics_log import Row, read_metrics
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.run import run_training

COMPILING = 2  # first steps, left out


@dataclass(frozen=True)
class Options:
    """Which runs are compared.

    Attributes:
      sft_from: folder of a run of the preset, whose fine-tuned model all start from.
      steps: RL steps of each run.
      pairs: of runs.
      level: compared with 0.
    """

    sft_from: Path
    steps: int = 12
    pairs: int = 3
    level: int = 1

    def __post_init__(self) -> None:
        if self.steps <= COMPILING:
            raise ValueError(f"steps must be > {COMPILING}, got {self.steps}")
        for name in ("pairs", "level"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


def rows_of(options: Options, level: int, folder: Path) -> list[Row]:
    """The rows of one run, without those in which JAX compiles."""
    preset = PRESETS["countdown"]
    run_training(
        dataclasses.replace(
            preset,
            run_dir=folder,
            sft_from=options.sft_from,
            rl=dataclasses.replace(preset.rl, steps=options.steps, async_level=level),
        )
    )
    return read_metrics(folder / "metrics.jsonl")


def main() -> None:
    """Runs the pairs and prints a line for each run and the ratio of each pair."""
    options = tyro.cli(Options, description=__doc__)
    ratios, lines = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for pair in range(options.pairs):
            seconds: dict[int, float] = {}
            order = (0, options.level)[:: 1 if pair % 2 == 0 else -1]
            for level in order:
                folder = Path(scratch) / f"{pair}-{level}"
                rows = rows_of(options, level, folder)
                timed = rows[COMPILING:]
                step = [r["time/step_s"] - r.get("time/evaluate_s", 0) for r in timed]
                wait = sum(r.get("time/wait_s", 0.0) for r in timed)
                seconds[level] = sum(step) / len(step)
                lines.append(
                    f"pair {pair + 1}, level {level}: {seconds[level]:6.2f} s a step, "
                    f"waiting {wait / sum(step):4.0%}, "
                    f"held out {rows[-1].get('heldout/accuracy', float('nan')):.1%}"
                )
            ratios.append(seconds[0] / seconds[options.level])
            lines.append(f"pair {pair + 1}: {ratios[-1]:.2f} times as fast")
    print("\n".join(lines))
    print(f"median of {len(ratios)}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
