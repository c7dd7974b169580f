"""DAPO, plain GRPO and supervised controls beside each other, over several seeds.

    python experiments/compare_countdown.py --seeds 0 1 2

For each seed: the main job (skipped if its folder holds a finished run), GRPO from the
same fine-tuned model, and two supervised controls that get the wall time of the RL
stage: further steps on the same traces, and on traces that never give up early. All are
measured on the same held-out problems. Writes comparison.json, comparison.md and
comparison.png.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jaxrl_reason.learner.sft import build_sft_learner
from jaxrl_reason.learner.sft_loop import train_sft
from jaxrl_reason.learner.state import OptimizerSettings, TrainState, init_state
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import Row, read_metrics
from jaxrl_reason.runs.plots import plot_comparison
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import open_run
from jaxrl_reason.runs.trackers import open_trackers
from jaxrl_reason.train.examples import Examples, sft_examples
from jaxrl_reason.train.fine_tuning import fine_tune
from jaxrl_reason.train.heldout_figures import values
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.run import finished_report, run_training
from jaxrl_reason.train.run_setup import RunSetup, build_run_setup
from jaxrl_reason.train.session import Session
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds, each a run of every method."""
    out: Path = Path("runs/comparison")
    """Where the comparison and its runs are kept."""
    control_learning_rate: float = 1e-3
    """Peak of the controls' cosine schedule."""
    main: TrainSettings = PRESETS["countdown"]
    """Settings of the main job; seed and run_dir are set here."""


def run_method(config: TrainSettings) -> dict[str, Any]:
    """Runs (or goes on with) one method and returns its report."""
    done = finished_report(config)
    if done is None:
        if run_training(replace(config, resume="auto")) is None:
            raise KeyboardInterrupt
        done = finished_report(config)
        assert done is not None
    return done


def rl_seconds(folder: Path) -> float:
    """Wall seconds of the RL steps, evaluations left out."""
    rows = read_metrics(folder / "metrics.jsonl")
    return sum(row["time/step_s"] - row.get("time/evaluate_s", 0.0) for row in rows)


def affordable_updates(folder: Path, config: TrainSettings, setup: RunSetup) -> int:
    """Supervised updates on a control's own traces that take as long as a run's RL."""
    # The first row holds the compilation, which a longer stage would not repeat.
    rows = read_metrics(folder / "sft.jsonl")[1:]
    speed = sum(row["sft/tokens"] for row in rows) / sum(
        row["time/sft_s"] for row in rows
    )
    examples = examples_of(setup, config)
    sizes = [sum(len(p) + len(r) for p, r in examples(n)) for n in range(20)]
    return round(rl_seconds(folder) * speed / statistics.mean(sizes))


def examples_of(setup: RunSetup, config: TrainSettings) -> Examples:
    """The traces of a run, by the number of the update."""
    return sft_examples(config, setup.task, setup.problems)


def run_control(
    comparison: Comparison, config: TrainSettings, dapo_folder: Path
) -> dict[str, Any]:
    """Further supervised steps for the wall time of the RL stage."""
    done = finished_report(config)
    if done is not None:
        return done
    sft_config = replace(comparison.main, seed=config.seed, sft_from=dapo_folder)
    sft_setup = build_run_setup(sft_config)
    updates = affordable_updates(dapo_folder, config, sft_setup)
    config = replace(config, sft=replace(config.sft, updates=updates))
    with (
        open_run(config.folder, config) as run,
        GracefulInterrupt() as interrupt,
        open_trackers(config.trackers, run.path) as trackers,
        TrainingProgress() as progress,
    ):
        session = Session(config, run, trackers, progress, interrupt)
        sft_policy = fine_tune(sft_setup, session)
        setup = replace(sft_setup, settings=config)
        before = values(setup.heldout.measure(sft_policy.params).figures)
        state = further_supervision(setup, sft_policy, session, comparison)
        after = values(setup.heldout.measure(state.params).figures)
    report = {
        "finished": int(state.step) == updates,
        "updates": updates,
        "heldout_accuracy_before": before["greedy"],
        "heldout_accuracy_rl": after["greedy"],
        "heldout_avg_before": before["avg_at_8"],
        "heldout_avg_rl": after["avg_at_8"],
    }
    (config.folder / "report.json").write_text(json.dumps(report, indent=2))
    return report


def further_supervision(
    setup: RunSetup, sft_policy: TrainState, session: Session, comparison: Comparison
) -> TrainState:
    """Goes on with supervision from the fine-tuned model under a new optimiser."""
    settings = setup.settings.sft
    optimizer = OptimizerSettings(
        learning_rate=comparison.control_learning_rate,
        warmup_updates=20,
        decay_updates=settings.updates,
    )
    learner = build_sft_learner(setup.model, settings, optimizer, setup.batch_sharding)

    def evaluate(params: Any) -> Row:
        return {"heldout/accuracy": setup.heldout.greedy.accuracy(params)}

    session.progress.stage("control", settings.updates)
    with session.log() as log:
        hooks = Hooks(
            log=log,
            checkpoints=CheckpointFolder(session.run.checkpoints_path / "control"),
            fingerprint=setup.sft_fingerprint(),
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=settings.updates,
            evaluate=evaluate,
            evaluate_every=100,
        )
        state = init_state(sft_policy.params, optimizer.build(), copy=True)
        return train_sft(learner, state, examples_of(setup, setup.settings), hooks)


def run_one(comparison: Comparison, name: str, seed: int) -> dict[str, Any]:
    """One method with one seed; its report."""
    folder = comparison.out / f"seed{seed}"
    sft_from = folder / FOLDERS["DAPO"]
    base = replace(comparison.main, seed=seed, run_dir=folder / FOLDERS[name])
    if name == "DAPO":
        return run_method(replace(base, method="dapo"))
    if name == "GRPO":
        return run_method(replace(base, method="grpo", sft_from=sft_from))
    # Problems in another order and other traces than the fine-tuning stage saw.
    control = replace(base, sft=replace(base.sft, seed=1000))
    if name == "supervised, never giving up":
        control = replace(control, traces=replace(base.traces, give_up=False))
    return run_control(comparison, control, sft_from)


# Seed -> method -> report.
Results = Mapping[int, Mapping[str, Mapping[str, Any]]]

FOLDERS = {
    "DAPO": "dapo",
    "GRPO": "grpo",
    "supervised": "supervised",
    "supervised, never giving up": "persistent",
}


def table(results: Results) -> str:
    """Markdown: a row a method, greedy and avg@8 of each seed and their mean."""
    seeds = list(results)
    lines = [
        "| held-out accuracy | "
        + " | ".join(f"seed {s}" for s in seeds)
        + " | mean | gain, points |",
        "|---|" + "---|" * (len(seeds) + 2),
    ]
    for kind, key in (("greedy", "heldout_accuracy"), ("avg@8", "heldout_avg")):
        before = [results[s]["DAPO"][f"{key}_before"] for s in seeds]
        lines.append(row_of(f"before RL, {kind}", before, before))
        for name in FOLDERS:
            values = [results[s][name][f"{key}_rl"] for s in seeds]
            lines.append(row_of(f"{name}, {kind}", values, before))
    return "\n".join(lines) + "\n"


def row_of(name: str, values: Sequence[float], before: Sequence[float]) -> str:
    """One row of the table; the gain is each seed's, in percentage points."""
    cells = [f"{value:.1%}" for value in values]
    gains = [100 * (v - p) for v, p in zip(values, before, strict=True)]
    gain = ", ".join(f"{g:+.1f}" for g in gains) if any(gains) else "-"
    mean = f"{statistics.mean(values):.1%}"
    return f"| {name} | {' | '.join(cells)} | {mean} | {gain} |"


def plot(comparison: Comparison, results: Results) -> None:
    """Draws comparison.png: all methods over steps and over wall time."""

    def curves(name: str) -> list[tuple[int, list[Row]]]:
        found = []
        for seed, reports in results.items():
            folder = comparison.out / f"seed{seed}" / FOLDERS[name]
            before = reports[name]["heldout_accuracy_before"]
            start = {"step": 0, "time/step_s": 0.0, "heldout/accuracy": before}
            found.append((seed, [start, *read_metrics(folder / "metrics.jsonl")]))
        return found

    plot_comparison(
        {name: curves(name) for name in ("DAPO", "GRPO")},
        comparison.out / "comparison.png",
        controls={name: curves(name) for name in FOLDERS if "supervised" in name},
        baseline=statistics.mean(
            reports["DAPO"]["heldout_accuracy_before"] for reports in results.values()
        ),
        title="Countdown, held-out greedy accuracy",
    )


def main() -> int:
    """Runs everything and writes the comparison."""
    comparison = tyro.cli(Comparison, description=__doc__)
    results: dict[int, dict[str, Any]] = {seed: {} for seed in comparison.seeds}
    for name in FOLDERS:
        for seed in comparison.seeds:
            results[seed][name] = run_one(comparison, name, seed)
    text = table(results)
    (comparison.out / "comparison.json").write_text(json.dumps(results, indent=2))
    (comparison.out / "comparison.md").write_text(text)

    plot(comparison, results)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
