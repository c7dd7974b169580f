"""The picture of several runs with their forecasts."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jaxrl_reason.runs.forecast import BAND, SigmoidFit, forecast
from jaxrl_reason.runs.run_curve import AXES, FARTHEST, RunCurve

# Of Okabe and Ito, which the colour-blind tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")


def plot_forecasts(
    runs: Sequence[tuple[RunCurve, SigmoidFit | None]],
    path: str | Path,
    *,
    axis: str,
    until: float,
) -> Path:
    """Draws runs with their forecasts over one axis.

    Points with bars of one standard error are measurements. A line is the median of
    the fitted curve, dashed after the last measurement; a band holds a measurement
    with a probability of 80%.

    Args:
      runs: curves with their fits; None for a run that has too few evaluations.
      path: the picture (.png).
      axis: one of `AXES`, that of the curves.
      until: where the forecasts end, of each run at most at 2.5 times its own length.

    Returns:
      The path.
    """
    figure = Figure(figsize=(10, 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for (curve, fit), colour in zip(runs, cycle(COLOURS), strict=False):
        panel.errorbar(
            curve.x,
            curve.accuracy,
            yerr=curve.errors,
            fmt="o",
            markersize=4,
            linewidth=1,
            color=colour,
            label=f"{curve.name} (last {curve.accuracy[-1]:.1%})",
        )
        if fit is not None:
            end = min(until, FARTHEST * float(curve.x[-1]))
            draw_forecast(panel, fit, end, colour)
    panel.set_title(
        f"Held-out accuracy and its forecast, with a band of {BAND:.0%}", fontsize=12
    )
    panel.set_xlabel(AXES[axis])
    panel.set_ylabel("fraction of problems solved")
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.set_xlim(-0.01 * until, 1.005 * until)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def draw_forecast(
    panel: Axes,
    fit: SigmoidFit,
    until: float,
    colour: str,
    label: str | None = None,
) -> None:
    """Draws a fit: its median, dashed after the last measurement, and its band.

    Args:
      panel: where.
      fit: what.
      until: where the forecast ends.
      colour: of all of it.
      label: of the dashed line in the legend.
    """
    x = np.union1d(np.linspace(fit.first, until, 200), [fit.last])
    low, median, high = forecast(fit, x)
    panel.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    past, ahead = x <= fit.last, x >= fit.last
    panel.plot(x[past], median[past], color=colour, linewidth=1.2, alpha=0.7)
    panel.plot(
        x[ahead], median[ahead], color=colour, linewidth=1.5, ls="--", label=label
    )
