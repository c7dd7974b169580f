"""Plots of runs: four panels of one run, and a comparison of several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxrl_reason.runs.forecast import BAND, SigmoidFit, forecast
from jaxrl_reason.runs.forecast_plot import draw_forecast
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.runs.run_curve import AHEAD

# The colours of Okabe and Ito, which colour-blind people can distinguish too.
_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PURPLE, _SKY, _GREY = "#CC79A7", "#56B4E9", "#666666"
_STYLE: dict[str, Any] = {"linewidth": 2.0, "solid_capstyle": "round"}
_BOLD: dict[str, Any] = {"linewidth": 3.0, "solid_capstyle": "round", "zorder": 5}
_DPI = 150  # 1500 pixels wide: sharp at a README's 1000
_FEW = 20  # up to this many rows are drawn unsmoothed


def plot_run(
    rows: Sequence[Row],
    path: str | Path,
    *,
    title: str = "",
    baseline: float | None = None,
    length_limit: int | None = None,
    clip_range: tuple[float, float] | None = None,
    fit: SigmoidFit | None = None,
) -> Path:
    """Plots one run: reward and accuracy, entropy, length, clipped tokens over steps.

    Columns that are missing, and values that are nan, are left out.

    Args:
      rows: of `read_metrics`.
      path: the picture (.png).
      title: above the four panels.
      baseline: held-out accuracy before RL, in [0, 1].
      length_limit: the largest number of tokens of a response.
      clip_range: (clip_low, clip_high), for the last panel's legend.
      fit: of held-out accuracy over steps: its forecast is drawn to twice the steps.

    Returns:
      The path.
    """
    figure, axes = _figure(2, 2, height=7.2, title=title)
    _panel_accuracy(axes[0], rows, baseline, fit)
    axes[1].set_title("Entropy (should not fall to 0 or run away)")
    axes[1].set_ylabel("nats per token")
    _line(axes[1], rows, "policy/entropy", "entropy of the policy", _PURPLE)
    _panel_length(axes[2], rows, length_limit)
    low, high = clip_range or (None, None)
    axes[3].set_title("Clipped tokens (should be few, but not none)")
    axes[3].set_ylabel("fraction of tokens")
    axes[3].yaxis.set_major_formatter(PercentFormatter(1.0))
    name = "above 1 + clip_high" if high is None else f"above 1 + {high:g}"
    _line(axes[3], rows, "policy/clip_fraction_high", f"ratio {name}", _RED)
    name = "below 1 − clip_low" if low is None else f"below 1 − {low:g}"
    _line(axes[3], rows, "policy/clip_fraction_low", f"ratio {name}", _BLUE)
    for panel in axes:
        _finish(panel, "RL step")
    if len(rows) > _FEW:
        window = 2 * _reach(len(rows)) + 1
        note = f"faint: single steps; strong: mean over {window} steps"
        figure.supxlabel(note, fontsize=9, color=_GREY)
    return _save(figure, path)


def plot_comparison(
    runs: Mapping[str, Sequence[tuple[int, Sequence[Row]]]],
    path: str | Path,
    *,
    controls: Mapping[str, Sequence[tuple[int, Sequence[Row]]]] | None = None,
    baseline: float | None = None,
    title: str = "",
) -> Path:
    """Plots held-out accuracy of several methods and seeds, by step and by wall time.

    A thin line is one seed, a bold one the mean of a method's seeds. Steps of a
    supervised control are not comparable, so by step it is a band from its worst to its
    best seed at the end of its training.

    Args:
      runs: method -> list of (seed, rows). A row with "heldout/accuracy" is a point.
        Its time is the sum so far of "time/step_s" (or "time/sft_s"), without
        "time/evaluate_s": evaluation is not training.
      path: the picture (.png).
      controls: the same for runs of further supervised training.
      baseline: held-out accuracy before training, in [0, 1].
      title: above the two panels.

    Returns:
      The path.
    """
    figure, (by_step, by_time) = _figure(1, 2, height=4.6, title=title)
    colours = [_BLUE, _ORANGE, _SKY, _RED, _GREY]
    for (label, seeds), colour in zip(runs.items(), _cycle(colours), strict=False):
        _seeds(by_step, seeds, "step", label, colour)
        _seeds(by_time, seeds, "minutes", label, colour)
    for (label, seeds), colour in zip(
        (controls or {}).items(), _cycle([_GREEN, _PURPLE]), strict=False
    ):
        _band(by_step, seeds, label, colour)
        _seeds(by_time, seeds, "minutes", label, colour)
    for panel, name in ((by_step, "step"), (by_time, "wall time")):
        panel.set_title(f"Held-out accuracy by {name}")
        panel.set_ylabel("fraction of problems solved")
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _dashed(panel, baseline, "before RL", percent=True)
    _finish(by_step, "RL step", legend=False)
    _finish(by_time, "minutes", whole=False, legend=False)
    handles, labels = by_time.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=2,
            fontsize=10,
            title="faint: single seeds; strong: their mean",
        )
    return _save(figure, path)


def _band(
    panel: Axes, seeds: Sequence[tuple[int, Sequence[Row]]], label: str, colour: str
) -> None:
    """From the worst to the best seed at the end of its time, and their mean."""
    ends = [points[-1, 1] for _, rows in seeds if len(points := _points(rows))]
    if not ends:
        return
    panel.axhspan(min(ends), max(ends), color=colour, alpha=0.2, linewidth=0)
    panel.axhline(float(np.mean(ends)), color=colour, linewidth=1.5)
    panel.annotate(
        f"{label}, at its end",
        (0.99, min(ends)),
        xycoords=("axes fraction", "data"),
        xytext=(0, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color=colour,
        fontsize=9,
    )


def _panel_accuracy(
    panel: Axes, rows: Sequence[Row], baseline: float | None, fit: SigmoidFit | None
) -> None:
    panel.set_title("Reward and held-out accuracy (should rise)")
    panel.set_ylabel("mean reward, fraction right")
    _line(panel, rows, "reward/mean", "reward of the samples", _SKY)
    if len(_column(rows, "heldout/accuracy")[0]):
        # The curve starts at the fine-tuned model: much may happen in a few steps.
        start = [] if baseline is None else [{"step": 0, "heldout/accuracy": baseline}]
        steps, values = _column([*start, *rows], "heldout/accuracy")
        panel.plot(
            steps,
            values,
            "o-",
            color=_BLUE,
            markersize=5,
            label=f"held-out accuracy (last {values[-1]:.1%})",
            zorder=4,
            **_STYLE,
        )
        if fit is not None:
            until = AHEAD * steps[-1]
            low, _, high = forecast(fit, np.array([until]))[:, 0]
            name = f"forecast: {low:.0%} to {high:.0%} at {until:g} ({BAND:.0%} band)"
            draw_forecast(panel, fit, until, _BLUE, name)
    _dashed(panel, baseline, "before RL", percent=True)


def _panel_length(panel: Axes, rows: Sequence[Row], limit: int | None) -> None:
    panel.set_title("Response length (should stay below the limit)")
    panel.set_ylabel("tokens")
    _line(panel, rows, "rollout/length_wrong", "wrong answers", _RED)
    _line(panel, rows, "rollout/length_mean", "all", _GREY)
    _line(panel, rows, "rollout/length_correct", "right answers", _GREEN)
    _dashed(panel, limit, "limit")


def _line(panel: Axes, rows: Sequence[Row], name: str, label: str, colour: str) -> None:
    """Plots a column, smoothed over a few steps, with the raw values faint behind."""
    steps, values = _column(rows, name)
    if not len(steps):
        return
    marker = "o" if len(steps) == 1 else ""
    if len(steps) <= _FEW:
        panel.plot(steps, values, color=colour, label=label, marker=marker, **_STYLE)
        return
    panel.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
    panel.plot(steps, _smooth(values), color=colour, label=label, **_STYLE)


def _reach(count: int) -> int:
    """The number of neighbours on each side in the mean of a smoothed value."""
    return max(1, count // 30)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window, shorter at the ends."""
    half = _reach(len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    first = np.maximum(index - half, 0)
    last = np.minimum(index + half + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _column(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows in which the column is a finite number."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    array = np.array(found, float).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    return array[:, 0], array[:, 1]


def _points(rows: Sequence[Row], by: str = "step") -> np.ndarray:
    """[K, 2] of (step or minutes, held-out accuracy)."""
    points, seconds = [], 0.0
    for row in rows:
        spent = row.get("time/step_s", row.get("time/sft_s", 0.0))
        seconds += spent - row.get("time/evaluate_s", 0.0)
        value = row.get("heldout/accuracy")
        if value is not None and np.isfinite(value):
            points.append((row["step"] if by == "step" else seconds / 60, value))
    return np.array(points, float).reshape(-1, 2)


def _seeds(
    panel: Axes,
    seeds: Sequence[tuple[int, Sequence[Row]]],
    by: str,
    label: str,
    colour: str,
) -> None:
    curves = [points for _, rows in seeds if len(points := _points(rows, by))]
    if not curves:
        return
    if len(curves) == 1:
        name = f"{label}: {curves[0][-1, 1]:.1%} at the end (1 seed)"
        panel.plot(*curves[0].T, color=colour, label=name, **_STYLE)
        return
    for curve in curves:
        panel.plot(*curve.T, color=colour, linewidth=0.9, alpha=0.5)
    # The mean, where every seed has a value.
    low = max(curve[0, 0] for curve in curves)
    high = min(curve[-1, 0] for curve in curves)
    grid = np.unique(np.concatenate([curve[:, 0] for curve in curves]))
    grid = grid[(grid >= low) & (grid <= high)]
    if not len(grid):
        return
    mean = np.mean([np.interp(grid, *curve.T) for curve in curves], axis=0)
    end = np.mean([curve[-1, 1] for curve in curves])
    name = f"{label}: {end:.1%} at the end (mean of {len(curves)} seeds)"
    marker = "o" if len(grid) == 1 else ""
    panel.plot(grid, mean, color=colour, label=name, marker=marker, **_BOLD)


def _dashed(
    panel: Axes, value: float | None, label: str, percent: bool = False
) -> None:
    if value is not None and np.isfinite(value):
        shown = f"{value:.1%}" if percent else f"{value:g}"
        panel.axhline(
            value,
            color="black",
            linestyle="--",
            linewidth=1.2,
            label=f"{label} ({shown})",
        )


def _cycle(colours: Sequence[str]) -> list[str]:
    return list(colours) * 10


def _figure(
    rows: int, columns: int, height: float, title: str
) -> tuple[Figure, list[Axes]]:
    # Not pyplot, which would select a backend for the whole program.
    figure = Figure(figsize=(10, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=15, fontweight="bold")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _finish(panel: Axes, unit: str, *, whole: bool = True, legend: bool = True) -> None:
    """Adds labels, grid and legend; the value axis starts at 0 or below."""
    panel.set_xlabel(unit)
    ticks = MaxNLocator(7, integer=whole, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1)
    panel.xaxis.set_major_locator(ticks)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    if not np.isfinite(panel.dataLim.intervalx).all():  # at most a dashed line
        for line in list(panel.lines):
            line.remove()
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center")
        return
    low, high = panel.dataLim.intervaly
    margin = 0.06 * (high - min(low, 0.0)) or 1.0
    panel.set_ylim(0.0 if low >= 0 else low - margin, max(high, 0.0) + margin)
    left, right = panel.dataLim.intervalx
    if right - left < 1e-9:
        panel.set_xlim(left - 1, left + 1)
    if legend:
        panel.legend(fontsize=9, framealpha=0.85)


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path
