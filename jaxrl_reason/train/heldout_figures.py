"""Held-out accuracies of a run: greedy, and the mean of several samples."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxrl_reason.evaluation.statistics import Estimate, mean_estimate, wilson
from jaxrl_reason.rl.heldout import HeldoutEvaluation, samples_for_people
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.task_metrics import task_metrics, under
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.samples import write_samples
from jaxrl_reason.sharding.agreement import on_main
from jaxrl_reason.sharding.processes import is_main
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.tasks.task import Task

Figures = Mapping[str, Estimate]  # "greedy" and "avg_at_<k>"
TASK = "task"  # beside them in before.json: the task's own metrics


@dataclass(frozen=True)
class Measured:
    """Held-out accuracies with their 95% intervals, and the greedy responses.

    Attributes:
      figures: by name, each with its interval.
      responses: the greedy responses.
    """

    figures: Figures
    responses: Rollouts


@dataclass(frozen=True)
class Heldout:
    """The evaluations of a run, over the same problems.

    Attributes:
      task: makes prompts and grades responses.
      problems: problems that are not trained on.
      greedy: one greedy response per problem.
      sampled: several samples per problem.
    """

    task: Task[Any]
    problems: Sequence[Any]
    greedy: HeldoutEvaluation
    sampled: HeldoutEvaluation

    def measure(self, params: Any) -> Measured:
        """Greedy accuracy, and the mean over samples."""
        responses = self.greedy.run(params)
        right = responses.correct[:, 0]
        fractions = self.sampled.run(params).correct.mean(axis=1)
        figures = {
            "greedy": wilson(int(right.sum()), len(right)),
            f"avg_at_{self.sampled.num_samples}": mean_estimate(fractions.tolist()),
        }
        return Measured(figures, responses)

    def row(self, params: Any) -> Row:
        """The greedy accuracy, how often the grader failed, the task's own metrics."""
        responses = self.greedy.run(params)
        row: Row = {"heldout/accuracy": float(responses.correct.mean())}
        if responses.failed.any():
            row["heldout/grader_failed_fraction"] = float(responses.failed.mean())
        return row | under("heldout", self.task_metrics(responses))

    def task_metrics(self, responses: Rollouts) -> Row:
        """What the task measures of held-out responses, by name."""
        by_id = {p.problem_id: p for p in self.problems}
        return task_metrics(self.task, by_id, responses)

    def before(self, params: Any, run: RunFolder) -> Figures:
        """The accuracies of the initial model, measured once per run.

        Raises:
          GraderError: the grader failed on every greedy response.
        """
        path = run.path / "before.json"
        known = on_main("first evaluation", partial(_read_json, path))
        if known is not None:
            known.pop(TASK, None)
            return {name: Estimate(**found) for name, found in known.items()}
        found = self.measure(params)
        if found.responses.failed.all():
            raise GraderError(
                "the grader must grade the held-out questions, but it failed on every "
                "response to them (its first error is above)"
            )
        self.write_samples(found.responses, run, 0)
        plain: dict[str, Any] = {
            name: dataclasses.asdict(x) for name, x in found.figures.items()
        }
        if metrics := self.task_metrics(found.responses):
            plain[TASK] = metrics
        atomic_write(path, json.dumps(plain, indent=2) + "\n")
        return found.figures

    def write_samples(
        self, responses: Rollouts, run: RunFolder, step: int, *, shown: int = 0
    ) -> None:
        """Writes greedy answers and prints some of them."""
        if not is_main():
            return
        by_id = {p.problem_id: p for p in self.problems}
        rows = samples_for_people(self.task, responses, by_id, len(self.problems))
        for row in rows:
            del row["reward"]  # held-out answers are graded but get no rewards
        some = rows[:: max(1, len(rows) // 24)]
        page = write_samples(run.path, step, some, "held-out")
        if not shown:
            return
        for row in rows[:: max(1, len(rows) // shown)][:shown]:
            verdict = "right" if row["correct"] else "wrong"
            say(f"\n{row['prompt']}\n  {row['answer']}\n  {verdict}")
        say(f"\nmore samples: {page}")


def task_metrics_before(run: Path) -> Row:
    """The task's metrics of the initial model's greedy responses.

    Args:
      run: folder of the run.
    """
    found: Row = (_read_json(run / "before.json") or {}).get(TASK, {})
    return found


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def values(figures: Figures) -> dict[str, float]:
    """The accuracies without their intervals."""
    return {name: found.value for name, found in figures.items()}


def percent(accuracies: Mapping[str, float]) -> str:
    """Accuracies as text.

    >>> percent({"greedy": 0.125, "avg_at_8": 0.25})
    '12.5% of held-out problems greedy, 25.0% avg@8'
    """
    means = (
        f", {value:.1%} {name.replace('_at_', '@')}"
        for name, value in accuracies.items()
        if name != "greedy"
    )
    return f"{accuracies['greedy']:.1%} of held-out problems greedy{''.join(means)}"


def intervals(before: Figures, after: Figures) -> str:
    """A table of the accuracies with their intervals, for the report."""
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


def metrics_table(before: Row, after: Row) -> str:
    """A table of a task's own metrics of greedy held-out responses, for the report.

    Args:
      before: of the initial model.
      after: of the trained one.

    Returns:
      Markdown; empty without metrics.
    """
    if not after:
        return ""
    lines = ["", "| greedy held-out responses | before | after |", "|---|---|---|"]
    for name, last in after.items():
        first = f"{before[name]:.3g}" if name in before else ""
        lines.append(f"| {name} | {first} | {last:.3g} |")
    return "\n".join([*lines, ""])
