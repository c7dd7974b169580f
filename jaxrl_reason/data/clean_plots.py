"""The plots of a cleaning, as SVG inside its page: the same bytes for the same data."""

import io
import itertools
import re
from collections.abc import Mapping
from typing import Any

_COLOURS = ("#3d7fc9", "#1a7f4b")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxrl_reason",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#33383f",
    "xtick.color": "#5a6069",
    "ytick.color": "#5a6069",
    "legend.frameon": False,
}


def lengths_plot(lengths: Mapping[str, Any]) -> str:
    """A histogram of each kind of length, side by side.

    Args:
      lengths: name -> of `lengths` in the report.

    Returns:
      SVG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.6), layout="constrained")
        panels = figure.subplots(1, len(lengths), squeeze=False)[0]
        for axes, (name, found) in zip(panels, lengths.items(), strict=True):
            edges = found["histogram"]["edges"]
            counts = found["histogram"]["counts"]
            widths = [b - a for a, b in itertools.pairwise(edges)]
            axes.bar(
                edges[:-1], counts, widths, align="edge", color=_COLOURS[0], ec="white"
            )
            axes.set_xlabel(f"{name.replace('_', ', in ')} (the last bar: or more)")
            axes.set_ylabel("rows")
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def buckets_plot(pass_rates: Mapping[str, Any]) -> str:
    """How many questions were solved how often, before and after the filter.

    Args:
      pass_rates: of the report.

    Returns:
      SVG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, colour, at in (
            ("asked", _COLOURS[0], 0.0),
            ("kept", _COLOURS[1], 0.4),
        ):
            places = [i + at for i in range(len(pass_rates[name]))]
            counts = list(pass_rates[name].values())
            axes.bar(places, counts, 0.38, align="edge", color=colour, label=name)
        names = list(pass_rates["asked"])
        axes.set_xticks([i + 0.39 for i in range(len(names))], names)
        axes.set_xlabel("responses that are right")
        axes.set_ylabel("questions")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
        return _svg(figure)


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), count=1, flags=re.DOTALL)
