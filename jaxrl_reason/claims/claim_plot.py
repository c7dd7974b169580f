"""The picture of a claim: its arms over their runs, every comparison, intervals."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from jaxrl_reason.claims.claim import Claim, Comparison, Panel
from jaxrl_reason.claims.claim_results import Results, effect_of
from jaxrl_reason.claims.claim_runs import ArmRun, Runs
from jaxrl_reason.claims.measures import known_mean

# Of Okabe and Ito, which the colour-blind tell apart too; more arms are not drawn.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def plot_claim(claim: Claim, results: Results, runs: Runs, path: Path) -> Path:
    """Draws a claim.

    Above, a panel for each of its metrics: every seed faintly, the mean of an arm's
    seeds strongly. Below, a row for each comparison: single seeds as rings, the mean
    and its interval, and the smallest effect that counts as a dashed line.

    Args:
      claim: whose arms they are.
      results: its numbers.
      runs: its rows.
      path: of the PNG.

    Returns:
      The path.
    """
    compared = _compared(claim, results)
    below = 0.9 + 0.36 * len(compared)
    figure = Figure(figsize=(9.6, 3.5 + below), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.5, below])
    top, bottom = parts
    _curves(claim, runs, top)
    _comparisons(claim, results, compared, bottom.subplots())
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _curves(claim: Claim, runs: Runs, part: SubFigure) -> None:
    axes = part.subplots(1, max(1, len(claim.panels)), squeeze=False)[0]
    arms = [arm for arm in claim.arms if arm in runs][: len(COLOURS)]
    for panel, ax in zip(claim.panels, axes, strict=False):
        for arm, colour in zip(arms, COLOURS, strict=False):
            _arm(ax, panel, arm, list(runs[arm].values()), colour)
        ax.set_title(panel.title, fontsize=10)
        step = panel.x == "step"
        ax.set_xlabel("RL step" if step else panel.x.split("/")[-1].replace("_", " "))
        ax.set_ylabel(panel.unit)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    lines = axes[0].get_legend_handles_labels()
    part.legend(*lines, loc="outside upper center", ncols=3, fontsize=8, frameon=False)


def _arm(
    ax: Axes, panel: Panel, name: str, runs: Sequence[ArmRun], colour: str
) -> None:
    nan = float("nan")  # such as the length of wrong responses where none is wrong
    lines = [
        [(row[panel.x], row.get(panel.metric, nan)) for row in run.rows] for run in runs
    ]
    # The mean goes up to where the first seed stops.
    at_steps = zip(*lines, strict=False)
    mean = [[known_mean(part) for part in zip(*at, strict=True)] for at in at_steps]
    _line(ax, mean, color=colour, linewidth=2.0, label=name)
    for line in lines:
        _line(ax, line, color=colour, alpha=0.25, linewidth=0.8)


def _line(ax: Axes, points: Sequence[Sequence[float]], **look: Any) -> None:
    """A line over the steps with the metric, as between two evaluations."""
    known = [(x, y) for x, y in points if not math.isnan(y)]
    ax.plot([x for x, _ in known], [y for _, y in known], **look)


def _compared(claim: Claim, results: Results) -> list[tuple[str, Comparison]]:
    every = [
        ("claim: ", claim.comparison),
        *(("control: ", c) for c in claim.controls),
        *(("", c) for c in claim.others),
    ]
    known = results.values[claim.measure.name].keys()
    return [(kind, c) for kind, c in every if known >= {c.treatment, c.baseline}]


def _comparisons(
    claim: Claim,
    results: Results,
    compared: Sequence[tuple[str, Comparison]],
    ax: Axes,
) -> None:
    measure = claim.measure
    for row, (_, c) in enumerate(compared):
        a, b = (
            results.of(measure.name, c.treatment),
            results.of(measure.name, c.baseline),
        )
        single = claim.direction * (a - b)  # [seeds]
        colour = COLOURS[0] if row == 0 else "#555555"
        ax.plot(
            single,
            np.full(len(single), row - 0.2),
            "o",
            mfc="none",
            mec=colour,
            ms=4,
            mew=0.8,
        )
        effect = effect_of(claim, results, c)
        if effect is not None:
            ax.plot([effect.low, effect.high], [row, row], color=colour, lw=2.5)
            ax.plot([effect.mean], [row], "D", color=colour, ms=6)
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.axvline(claim.smallest, color="black", linewidth=0.8, linestyle="--")
    ax.set_yticks(range(len(compared)), [f"{kind}{c}" for kind, c in compared])
    ax.tick_params(axis="y", labelsize=8, length=0)
    ax.set_ylim(len(compared) - 0.5, -0.6)
    word = "more" if claim.direction > 0 else "less"
    ax.set_xlabel(
        f"{measure.name}: {word} than the baseline, {measure.unit}", fontsize=9
    )
    ax.grid(alpha=0.3, axis="x")
    ax.spines[["top", "right", "left"]].set_visible(False)
