"""The plots of a report, as SVG inside the page."""

import io
import re
from typing import Any

import numpy as np

from jaxrl_reason.testing.evidence import Evidence, Series, no_slope
from jaxrl_reason.testing.toy import interval

OWN, OTHER, CLIP = "#3d7fc9", "#22262c", "#f3c9a0"
_LENGTH_COLOURS = ("#1f5fa8", "#2f9e77", "#c2571a")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxrl_reason",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#33383f",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": "#5a6069",
    "ytick.color": "#5a6069",
    "axes.grid": True,
    "grid.color": "#e8eaed",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


def profile_plot(evidence: Evidence) -> str:
    """Objective and gradient by ratio, shaded where the gradient is 0."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 5.4), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, sign in enumerate(("A > 0", "A < 0")):
            for row, quantity in enumerate(("objective", "slope")):
                ax = axes[row, column]
                _lines(ax, evidence, sign, quantity)
                ax.axvline(1.0, color="#33383f", lw=0.8, ls=":")
            own = evidence.profiles[evidence.name][sign]
            for ax in axes[:, column]:
                _shade(ax, own)
            axes[0, column].set_title(f"{sign[0]} = {'1' if column == 0 else '-1'}")
            axes[1, column].set_xlabel("ratio  π / π_old")
        axes[0, 0].set_ylabel("objective of a token, -L")
        axes[1, 0].set_ylabel("push on its log-prob, -dL/dlog π")
        axes[0, 0].legend(loc="upper left", fontsize=9)
        return _svg(figure)


def _lines(ax: Any, evidence: Evidence, sign: str, quantity: str) -> None:
    for name, profile in evidence.profiles.items():
        own = name == evidence.name
        x, y = profile[sign]["ratio"], np.array(profile[sign][quantity])
        style = {"color": OWN, "lw": 2.6} if own else {"color": OTHER, "lw": 1.3}
        ax.plot(x, y, ls="-" if own else (0, (5, 3)), label=name, **style)


def _shade(ax: Any, profile: Series) -> None:
    still = no_slope(profile)
    if still.any():
        ax.fill_between(
            profile["ratio"],
            0,
            1,
            where=still,
            transform=ax.get_xaxis_transform(),
            color=CLIP,
            alpha=0.45,
            lw=0,
        )


def position_plot(evidence: Evidence) -> str:
    """Gradient size by token position, for responses of three lengths."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(4.5, 3.3), layout="constrained")
        ax = figure.subplots()
        pairs = zip(_LENGTH_COLOURS, evidence.positions.items(), strict=True)
        for i, (colour, (length, sizes)) in enumerate(reversed(list(pairs))):
            places = np.arange(1, length + 1)
            ax.plot(
                places,
                sizes,
                "o-",
                color=colour,
                ms=4 + 2 * i,
                lw=1.2,
                mfc="white",
                label=f"{length} tokens",
            )
        ax.set(xlabel="position in the response", ylabel="|dL/dlog π| at ratio 1")
        ax.set_xticks([1, 4, 8, 12, 16])
        ax.set_ylim(0, 1.15 * max(max(x) for x in evidence.positions.values()))
        ax.legend(fontsize=9)
        return _svg(figure)


def curve_plot(evidence: Evidence) -> str:
    """Accuracy on the toy task: the mean over seeds and its interval."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(4.5, 3.3), layout="constrained")
        ax = figure.subplots()
        for name, runs in evidence.curves.items():
            own = name == evidence.name
            colour = OWN if own else OTHER
            steps = np.arange(1, runs.shape[1] + 1)
            low, high = interval(runs)
            ax.fill_between(
                steps, low, high, color=colour, alpha=0.22 if own else 0.1, lw=0
            )
            ls = "-" if own else (0, (5, 3))
            lw = 2.6 if own else 1.3
            ax.plot(steps, runs.mean(0), color=colour, lw=lw, ls=ls, label=name)
        ax.set(xlabel="step", ylabel="accuracy", ylim=(-0.02, 1.02))
        ax.legend(fontsize=9, loc="lower right")
        return _svg(figure)


def _svg(figure: Any) -> str:
    """The figure as an element of a page, without a date."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = re.sub(r"(?s)^.*?(<svg)", r"\1", text)
    text = re.sub(r"(?s)<metadata>.*?</metadata>", "", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
