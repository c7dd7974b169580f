"""Trains a small transformer to solve Countdown puzzles by DAPO, on a laptop.

    python experiments/dapo_countdown.py --seed 0

Two CPU cores need less than ten minutes. A model of 0.6M parameters first learns from
synthetic search traces how to try, check and go back (supervised priming), then learns
by reinforcement to search well: held-out greedy accuracy rises by more than 20 points.
Held-out puzzles have sets of numbers that never occur in training.

The run's folder then holds config.json, metrics.jsonl, TensorBoard events, samples,
curves.png, checkpoints, report.json and report.md. Ctrl-C leaves a run that
`--resume` (with the same --run-dir) continues.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.countdown_setup import Bench, Config, set_up, trace_examples
from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.training.batch import Rollouts
from jaxrl_reason.training.checkpoints import CheckpointFolder
from jaxrl_reason.training.collect import GraderError, NoSignalError
from jaxrl_reason.training.evaluate import samples_for_people
from jaxrl_reason.training.interrupt import GracefulInterrupt
from jaxrl_reason.training.loops import (
    LoopTools,
    resume_rl,
    resume_supervised,
    train_rl,
    train_supervised,
)
from jaxrl_reason.training.metrics import MetricsLog, Row, read_metrics, truncate_after
from jaxrl_reason.training.monitor import peak_memory_bytes, versions
from jaxrl_reason.training.plots import plot_run
from jaxrl_reason.training.progress import TrainingProgress
from jaxrl_reason.training.report import Report, write_report
from jaxrl_reason.training.rl_parts import RLState, start_rl
from jaxrl_reason.training.run_folder import RunFolder, open_run
from jaxrl_reason.training.samples import write_samples
from jaxrl_reason.training.stage_clock import StageClock
from jaxrl_reason.training.state import TrainState, create_state


def fresh_model(bench: Bench) -> TrainState:
    """An untrained model under the priming optimiser."""
    place = bench.place
    key = jax.random.key(bench.config.seed)
    optimizer = bench.config.prime_schedule().build()
    return create_state(bench.model, optimizer, key, place.mesh, place.rules)


@dataclass(frozen=True)
class Session:
    """Where this process writes, what it shows, and whether it was asked to stop."""

    run: RunFolder
    progress: TrainingProgress
    interrupt: GracefulInterrupt


def prime(bench: Bench, session: Session) -> TrainState:
    """Supervised priming from update 0, or from where the folder's run stopped."""
    config, state, run = bench.config, fresh_model(bench), session.run
    fingerprint = config.model_fingerprint()
    folder = config.primed_from or run.path
    checkpoints = CheckpointFolder(folder / "checkpoints" / "prime", keep=1)
    if config.primed_from or checkpoints.steps():
        state = resume_supervised(checkpoints, fingerprint, state)
    if config.primed_from and int(state.step) < config.prime.updates:
        raise ValueError(
            f"primed_from must hold a model primed for {config.prime.updates} updates, "
            f"got one of {int(state.step)} in {folder}"
        )
    if int(state.step) >= config.prime.updates:
        return state
    truncate_after(run.path / "prime.jsonl", int(state.step))
    session.progress.stage("priming", config.prime.updates, int(state.step))
    with MetricsLog(run.path, name="prime") as log:
        tools = LoopTools(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=500,
        )
        return train_supervised(bench.supervised, state, trace_examples(bench), tools)


def reinforce(
    bench: Bench, primed: TrainState, session: Session
) -> tuple[RLState, int]:
    """The RL stage on the primed model; also the step that this process began with."""
    config, parts, run = bench.config, bench.rl, session.run
    state = start_rl(parts, primed)
    problems = ProblemStream(
        bench.train_problems,
        batch_size=parts.settings.prompts_per_step,
        seed=parts.settings.seed,
    )
    by_id = {p.problem_id: p for p in bench.train_problems}
    checkpoints = CheckpointFolder(run.checkpoints_path / "rl")
    fingerprint = config.rl_fingerprint()
    if checkpoints.steps() or config.resume_step is not None:
        state = resume_rl(checkpoints, fingerprint, state, problems, config.resume_step)
    truncate_after(run.metrics_path, state.step)

    def evaluate(params: Any) -> Row:
        return {"heldout_accuracy": bench.greedy.accuracy(params)}

    def show(step: int, rollouts: Rollouts) -> None:
        rows = samples_for_people(bench.task, rollouts, by_id, 8)
        write_samples(run.path, step, rows, "train")

    session.progress.stage(parts.method.name, config.rl.steps, state.step)
    with MetricsLog(run.path) as log:
        tools = LoopTools(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=config.save_every,
            evaluate=evaluate,
            evaluate_every=config.eval_every,
            show_samples=show,
        )
        return train_rl(parts, state, problems, tools), state.step


@dataclass(frozen=True)
class Outcome:
    """What a run measured of its own model."""

    primed: dict[str, float]
    trained: dict[str, float]
    state: RLState
    first_step: int  # that this process began with: 0, or of the checkpoint


def run_countdown(config: Config) -> Outcome | None:
    """The whole run; None if it was interrupted and has left a checkpoint."""
    started = time.perf_counter()
    bench = set_up(config)
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with TrainingProgress() as progress:
            session = Session(run, progress, interrupt)
            with clock("priming"):
                primed = prime(bench, session)
            if interrupt.requested:
                return None
            with clock("evaluation"):
                before = bench.accuracies(primed.params)
            progress.note(f"primed: {percent(before)}")
            with clock(config.method):
                state, first_step = reinforce(bench, primed, session)
            if interrupt.requested:
                return None
            with clock("evaluation"):
                after = bench.accuracies(state.policy.params)
            progress.note(f"after {config.method}: {percent(after)}")
        outcome = Outcome(before, after, state, first_step)
        leave_samples(bench, run, state)
        leave_results(config, run, bench, outcome, clock.seconds)
    return outcome


def percent(accuracies: dict[str, float]) -> str:
    """Accuracies as people read them."""
    greedy, mean = accuracies["greedy"], accuracies["avg_at_8"]
    return f"{greedy:.1%} of held-out problems greedy, {mean:.1%} avg@8"


def leave_samples(bench: Bench, run: RunFolder, state: RLState) -> None:
    """Writes greedy answers to held-out problems and shows three of them."""
    problems = {p.problem_id: p for p in bench.heldout_problems}
    rollouts = bench.greedy.run(state.policy.params)
    rows = samples_for_people(bench.task, rollouts, problems, len(problems))
    for row in rows:
        del row["reward"]  # held-out answers are graded, not rewarded
    page = write_samples(
        run.path, state.step, rows[:: max(1, len(rows) // 24)], "held-out"
    )
    for row in rows[:: max(1, len(rows) // 3)][:3]:
        verdict = "right" if row["correct"] else "wrong"
        print(f"\n{row['prompt']}\n  {row['answer']}\n  {verdict}")
    print(f"\nmore samples: {page}")


def leave_results(
    config: Config,
    run: RunFolder,
    bench: Bench,
    outcome: Outcome,
    seconds: dict[str, float],
) -> None:
    """Writes curves.png, report.json and report.md, and says what came out."""
    rows = read_metrics(run.metrics_path)
    plot_run(
        rows,
        run.curves_path,
        title=f"{config.method.upper()} on Countdown, seed {config.seed}",
        baseline=outcome.primed["greedy"],
        length_limit=config.rl.max_new_tokens,
        clip_range=(config.dapo.clip_low, config.dapo.clip_high)
        if config.method == "dapo"
        else None,
    )
    warm = [row for row in rows if row["step"] > outcome.first_step + 2]
    report = Report(
        name=run.path.name,
        method=config.method,
        seed=config.seed,
        steps=outcome.state.step,
        heldout_problems=len(bench.heldout_problems),
        heldout_accuracy_primed=outcome.primed["greedy"],
        heldout_accuracy_rl=outcome.trained["greedy"],
        heldout_samples=bench.sampled.num_samples,
        heldout_avg_primed=outcome.primed["avg_at_8"],
        heldout_avg_rl=outcome.trained["avg_at_8"],
        wall_seconds=seconds,
        rollout_tokens_per_second=rate(rows, "rollout"),
        train_tokens_per_second=rate(rows, "train"),
        peak_memory_bytes=peak_memory_bytes(),
        compiles_after_warm_up=int(sum(row["compiles"] for row in warm)),
        settings=config,
        versions=versions(),
        more={"eval_split": config.eval_split, "first_step": outcome.first_step},
    )
    path = write_report(run.path, report)
    print(path.with_suffix(".md").read_text("utf-8"))
    print(f"curves: {run.curves_path}")


def rate(rows: Sequence[Row], phase: str) -> float | None:
    """Tokens a second of a phase over all steps."""
    seconds = sum(row[f"seconds_{phase}"] for row in rows)
    return sum(row[f"{phase}_tokens"] for row in rows) / seconds if seconds else None


def main() -> int:
    """Reads the command line, runs, and turns expected errors into one sentence."""
    config = tyro.cli(Config, description=__doc__)
    try:
        outcome = run_countdown(config)
    except (ValueError, NoSignalError, GraderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the second one: do not even finish the step
        outcome = None
    if outcome is None:
        print(
            f"stopped; go on with: python {sys.argv[0]} --resume "
            f"--run-dir {config.folder} (and the flags of the first start)"
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
