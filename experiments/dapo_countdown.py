"""Trains a small transformer to solve Countdown puzzles by DAPO, on a laptop.

    python experiments/dapo_countdown.py --seed 0

Two CPU cores need less than ten minutes. A model of 0.6M parameters first learns from
synthetic search traces how to try, check and go back (supervised fine-tuning), then
learns by reinforcement to search well: held-out greedy accuracy rises by more than 20
points. Held-out puzzles have sets of numbers that never occur in training.

The settings are the preset `countdown` of `jaxrl-reason train`
(jaxrl_reason/train/presets.py); every flag of it may be given here. The run's folder
then holds config.yaml, metrics.jsonl, TensorBoard events, samples, curves.png,
checkpoints, report.json and report.md. Ctrl-C leaves a run that `--resume must` (with
the same --run-dir) continues.
"""

import sys
from pathlib import Path

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxrl_reason.cli.train import script


def main() -> None:
    """Runs the preset with the flags of the command line."""
    script(sys.argv, preset="countdown", description=__doc__ or "")


if __name__ == "__main__":
    main()
