"""Draws docs/images/forecast.png: what was hidden of stored curves, and its forecast.

python -m tests.runs.draw_stored_curves
"""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from jaxrl_reason.runs.forecast import binomial_errors, fit_sigmoid
from jaxrl_reason.runs.forecast_plot import COLOURS, draw_forecast
from tests.runs.test_forecast import STORED, seen

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "forecast.png"


def main() -> None:
    curves = [curve for curve in STORED if curve["later"]][::2]
    figure = Figure(figsize=(11, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4, sharey=True)
    for curve, panel in zip(curves, panels.flat, strict=True):
        x, y = np.array(curve["steps"], float), np.array(curve["accuracy"])
        errors, shown = binomial_errors(y, curve["samples"]), seen(len(y))
        fit = fit_sigmoid(x[:shown], y[:shown], errors[:shown])
        draw_forecast(panel, fit, x[-1], COLOURS[0])
        panel.plot(x[:shown], y[:shown], "o", color=COLOURS[0], ms=3.5, label="fitted")
        panel.plot(
            *(x[shown:], y[shown:], "o"),
            **{"mfc": "white", "mec": COLOURS[1], "ms": 3.5, "label": "hidden"},
        )
        panel.set_title(curve["name"], fontsize=9)
        panel.grid(alpha=0.25)
        panel.set_ylim(-0.02, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[1]:
        panel.set_xlabel("RL step")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
