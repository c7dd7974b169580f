"""Arms beside each other: the same runs but for one switch, a figure and a table."""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.toys.toy_setup import ToySetup, run_method
from jaxrl_reason.rl.method import Method
from jaxrl_reason.runs.metrics_log import Row

# Arm -> the rows of each of its seeds.
Runs = Mapping[str, Sequence[Sequence[Row]]]

# Of Okabe and Ito, which the colour-blind tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


@dataclass(frozen=True)
class Panel:
    """One quantity over the run.

    Attributes:
      metric: of the rows.
      title: above the panel.
      unit: beside the axis.
      x: metric of the horizontal axis, "step" or a running total.
    """

    metric: str
    title: str
    unit: str = ""
    x: str = "step"


def plot_arms(runs: Runs, panels: Sequence[Panel], path: Path, *, title: str) -> Path:
    """Draws every seed's line faintly and the mean of an arm's seeds strongly.

    The mean is over seeds at the same step, up to where the first of them stops.
    """
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, ax in zip(panels, axes, strict=True):
        for (name, seeds), colour in zip(runs.items(), COLOURS, strict=False):
            _arm(ax, panel, name, seeds, colour)
        ax.set_title(panel.title, fontsize=10)
        ax.set_xlabel(
            "RL step" if panel.x == "step" else panel.x.split("/")[-1].replace("_", " ")
        )
        ax.set_ylabel(panel.unit)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _arm(
    ax: Axes, panel: Panel, name: str, seeds: Sequence[Sequence[Row]], colour: str
) -> None:
    nan = float("nan")  # e.g. the length of wrong responses where none is wrong
    lines = [
        ([row[panel.x] for row in rows], [row.get(panel.metric, nan) for row in rows])
        for rows in seeds
    ]
    for xs, ys in lines:
        ax.plot(xs, ys, color=colour, alpha=0.25, linewidth=0.8)
    xs, ys = (
        [_mean(at) for at in zip(*part, strict=False)]
        for part in zip(*lines, strict=True)
    )
    ax.plot(xs, ys, color=colour, linewidth=2.0, label=name)


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if v == v]
    return statistics.mean(known) if known else float("nan")


# One number of a run, such as the mean of a metric over its last steps.
Summary = Callable[[Sequence[Row]], float]


def over_steps(metric: str, first: int, last: int) -> Summary:
    """Mean of a metric over the steps `first` to `last`, where it is known."""

    def summary(rows: Sequence[Row]) -> float:
        return _mean([r[metric] for r in rows[first - 1 : last] if metric in r])

    return summary


def first_row(
    metric: str, reached: Callable[[Sequence[Row]], bool], scale: float = 1.0
) -> Summary:
    """A metric at the first row that a goal is reached with, times `scale`; or nan."""

    def summary(rows: Sequence[Row]) -> float:
        for n in range(1, len(rows) + 1):
            if reached(rows[:n]):
                return scale * rows[n - 1][metric]
        return float("nan")

    return summary


def table(runs: Runs, summaries: Mapping[str, Summary], *, digits: int = 2) -> str:
    """Markdown: a row per arm; mean, standard deviation and every seed's number."""
    lines = [f"| arm | {' | '.join(summaries)} |", "|---" * (1 + len(summaries)) + "|"]
    for name, seeds in runs.items():
        cells = []
        for summary in summaries.values():
            values = [summary(rows) for rows in seeds]
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            each = ", ".join(f"{v:.{digits}f}" for v in values)
            mean = statistics.mean(values)
            cells.append(f"{mean:.{digits}f} ± {std:.{digits}f} ({each})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Arm:
    """A method on a setup."""

    method: Method
    setup: ToySetup


@dataclass(frozen=True)
class Experiment:
    """Arms that differ in one switch, run with the same seeds."""

    name: str
    title: str
    arms: Mapping[str, Arm]
    seeds: Sequence[int]
    steps: int
    panels: Sequence[Panel]
    summaries: Mapping[str, Summary]
    until: Callable[[Sequence[Row]], bool] | None = None
    digits: int = 2


def run_arms(experiment: Experiment) -> Runs:
    """Every arm with every seed."""
    steps, until = experiment.steps, experiment.until
    return {
        name: [
            run_method(arm.method, seed, steps=steps, setup=arm.setup, until=until)
            for seed in experiment.seeds
        ]
        for name, arm in experiment.arms.items()
    }


def run_script(experiment: Experiment, arguments: Sequence[str] | None = None) -> None:
    """Runs an experiment, prints the table, writes it with the figure and the rows.

    Args:
      experiment: what the script is about.
      arguments: of the command line: --out, --seeds, --steps, --arms.
    """
    parser = argparse.ArgumentParser(description=experiment.title)
    parser.add_argument("--out", type=Path, default=Path("runs/toys"))
    parser.add_argument("--seeds", type=int, nargs="+", default=experiment.seeds)
    parser.add_argument("--steps", type=int, default=experiment.steps)
    every = list(experiment.arms)
    parser.add_argument("--arms", nargs="+", choices=every, default=every)
    given = parser.parse_args(arguments)
    arms = {name: experiment.arms[name] for name in given.arms}
    e = replace(experiment, arms=arms, seeds=given.seeds, steps=given.steps)
    runs = run_arms(e)
    text = table(runs, e.summaries, digits=e.digits)
    print(text)
    plot_arms(runs, e.panels, given.out / f"{e.name}.png", title=e.title)
    (given.out / f"{e.name}.md").write_text(text, encoding="utf-8")
    (given.out / f"{e.name}.json").write_text(json.dumps(runs), encoding="utf-8")
