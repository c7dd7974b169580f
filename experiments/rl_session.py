"""What experiments with a reinforcement stage share, whatever the model and the task.

The session in a run's folder, the stage itself, its samples, its report, and the exit
status of a script.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.rl.collect import GraderError, NoSignalError
from jaxrl_reason.rl.heldout import samples_for_people
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rl_loop import resume_rl, train_rl
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics import (
    MetricsLog,
    Row,
    read_metrics,
    truncate_after,
)
from jaxrl_reason.runs.monitor import peak_memory_bytes, versions
from jaxrl_reason.runs.plots import plot_run
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.run_report import Report, write_report
from jaxrl_reason.runs.samples import write_samples
from jaxrl_reason.tasks.task import Task


@dataclass(frozen=True)
class Session:
    """Where this process writes, what it shows, and whether it was asked to stop."""

    run: RunFolder
    progress: TrainingProgress
    interrupt: GracefulInterrupt


@dataclass(frozen=True)
class Reinforcement:
    """An RL stage: what is trained on what, how often it is measured and saved.

    Attributes:
      learner: the compiled pieces.
      problems: to train on.
      accuracy: params -> held-out accuracy.
      fingerprint: settings that a resumed run must share.
      eval_every: steps between evaluations.
      save_every: steps between checkpoints.
      resume_step: the checkpoint to go on from; the newest if None.
      keep: how many checkpoints stay.
    """

    learner: RLLearner
    problems: Sequence[Any]
    accuracy: Callable[[Any], float]
    fingerprint: Mapping[str, Any]
    eval_every: int
    save_every: int
    resume_step: int | None = None
    keep: int = 3


def reinforce(
    stage: Reinforcement, state: RLState, session: Session
) -> tuple[RLState, int]:
    """Runs the stage from step 0, or from where the folder's run stopped.

    Args:
      stage: what is done.
      state: of step 0.
      session: where to.

    Returns:
      The last state, and the step that this process began with.
    """
    learner, run = stage.learner, session.run
    problems = ProblemStream(
        list(stage.problems),
        batch_size=learner.settings.prompts_per_step,
        seed=learner.settings.seed,
    )
    by_id = {p.problem_id: p for p in stage.problems}
    checkpoints = CheckpointFolder(run.checkpoints_path / "rl", keep=stage.keep)
    if checkpoints.steps() or stage.resume_step is not None:
        state = resume_rl(
            checkpoints, stage.fingerprint, state, problems, stage.resume_step
        )
    first_step = state.step
    truncate_after(run.metrics_path, first_step)

    def evaluate(params: Any) -> Row:
        return {"heldout/accuracy": stage.accuracy(params)}

    def show(step: int, rollouts: Rollouts) -> None:
        rows = samples_for_people(learner.task, rollouts, by_id, 8)
        write_samples(run.path, step, rows, "train")

    session.progress.stage(learner.method.name, learner.settings.steps, first_step)
    with MetricsLog(run.path) as log:
        hooks = Hooks(
            log=log,
            checkpoints=checkpoints,
            fingerprint=stage.fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=stage.save_every,
            evaluate=evaluate,
            evaluate_every=stage.eval_every,
            show_samples=show,
        )
        return train_rl(learner, state, problems, hooks), first_step


@dataclass(frozen=True)
class RunResult:
    """What a run measured of its own model: `greedy` and `avg_at_<k>`."""

    before: dict[str, float]
    after: dict[str, float]
    state: RLState
    first_step: int  # that this process began with: 0, or of the checkpoint


def percent(accuracies: Mapping[str, float]) -> str:
    """Accuracies as people read them.

    >>> percent({"greedy": 0.125, "avg_at_8": 0.25})
    '12.5% of held-out problems greedy, 25.0% avg@8'
    """
    means = (
        f", {value:.1%} {name.replace('_at_', '@')}"
        for name, value in accuracies.items()
        if name != "greedy"
    )
    return f"{accuracies['greedy']:.1%} of held-out problems greedy{''.join(means)}"


def write_heldout_samples(
    task: Task, problems: Sequence[Any], rollouts: Rollouts, run: RunFolder, step: int
) -> None:
    """Writes greedy answers to held-out problems and shows three of them."""
    by_id = {p.problem_id: p for p in problems}
    rows = samples_for_people(task, rollouts, by_id, len(problems))
    for row in rows:
        del row["reward"]  # held-out answers are graded, not rewarded
    page = write_samples(run.path, step, rows[:: max(1, len(rows) // 24)], "held-out")
    for row in rows[:: max(1, len(rows) // 3)][:3]:
        verdict = "right" if row["correct"] else "wrong"
        print(f"\n{row['prompt']}\n  {row['answer']}\n  {verdict}")
    print(f"\nmore samples: {page}")


@dataclass(frozen=True)
class ReportFields:
    """What a report says of a run beside its result."""

    title: str
    method: str
    seed: int
    length_limit: int
    clip_range: tuple[float, float] | None
    heldout_problems: int
    heldout_samples: int
    heldout_temperature: float
    settings: Any
    more: Mapping[str, Any] = field(default_factory=dict)


def write_run_report(
    run: RunFolder,
    about: ReportFields,
    result: RunResult,
    seconds: Mapping[str, float],
) -> Path:
    """Writes curves.png, report.json and report.md.

    Returns:
      report.md.
    """
    rows = read_metrics(run.metrics_path)
    plot_run(
        rows,
        run.curves_path,
        title=about.title,
        baseline=result.before["greedy"],
        length_limit=about.length_limit,
        clip_range=about.clip_range,
    )
    warm = [row for row in rows if row["step"] > result.first_step + 2]
    sampled = f"avg_at_{about.heldout_samples}"
    report = Report(
        name=run.path.name,
        method=about.method,
        seed=about.seed,
        steps=result.state.step,
        heldout_problems=about.heldout_problems,
        heldout_accuracy_before=result.before["greedy"],
        heldout_accuracy_rl=result.after["greedy"],
        heldout_samples=about.heldout_samples,
        heldout_temperature=about.heldout_temperature,
        heldout_avg_before=result.before[sampled],
        heldout_avg_rl=result.after[sampled],
        wall_seconds=seconds,
        rollout_tokens_per_second=rate(rows, "rollout"),
        train_tokens_per_second=rate(rows, "train"),
        peak_memory_bytes=peak_memory_bytes(),
        compiles_after_warm_up=int(sum(row["time/compiles"] for row in warm)),
        settings=about.settings,
        versions=versions(),
        more={**about.more, "first_step": result.first_step},
    )
    return write_report(run.path, report).with_suffix(".md")


def show_results(page: Path, run: RunFolder) -> None:
    """Prints the report and says where the curves are."""
    print(page.read_text("utf-8"))
    print(f"curves: {run.curves_path}")


def rate(rows: Sequence[Row], phase: str) -> float | None:
    """Tokens a second of a phase over all steps."""
    seconds = sum(row[f"time/{phase}_s"] for row in rows)
    return sum(row[f"{phase}/tokens"] for row in rows) / seconds if seconds else None


def exit_status(run: Callable[[], RunResult | None], folder: Path) -> int:
    """Runs a script's work; expected errors and a stop become one sentence.

    Args:
      run: the whole run; None says that it was interrupted and can be resumed.
      folder: of the run.

    Returns:
      0, 1 for an error, 130 after an interrupt.
    """
    try:
        outcome = run()
    except (ValueError, NoSignalError, GraderError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # the second one: do not even finish the step
        outcome = None
    if outcome is None:
        print(
            f"stopped; go on with: python {sys.argv[0]} --resume "
            f"--run-dir {folder} (and the flags of the first start)"
        )
        return 130
    return 0
