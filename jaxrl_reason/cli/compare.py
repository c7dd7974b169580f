"""`jaxrl-reason compare`: runs with their forecasts beside each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jaxrl_reason.runs.forecast import BAND, ENOUGH, SigmoidFit, forecast
from jaxrl_reason.runs.forecast_plot import plot_forecasts
from jaxrl_reason.runs.run_curve import (
    AHEAD,
    AXES,
    FARTHEST,
    RunCurve,
    read_run_curve,
)


@dataclass(frozen=True)
class CompareSettings:
    """Draw held-out accuracy of runs with its forecast, and print both as a table.

    The forecast is the sigmoid of arXiv 2510.13786, fitted to the evaluations of a run,
    with a band in which a later measurement lies with a probability of 80%.

    Attributes:
      runs: folders of runs.
      x: what accuracy is drawn and fitted over: RL steps, sampled response tokens, or
        compute (wall time of the steps without evaluations, times the devices).
      ahead: the forecasts end at this multiple of the longest run, up to 2.5, and each
        at 2.5 times its own run.
      out: the picture.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    x: Literal["steps", "tokens", "compute"] = "compute"
    ahead: float = AHEAD
    out: Path = Path("compare.png")

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs must name at least one folder, got none")
        if not 1 <= self.ahead <= FARTHEST:
            raise ValueError(f"ahead must be from 1 to {FARTHEST}, got {self.ahead}")


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: a folder has no run, or a run no evaluations.
    """
    settings = tyro.cli(CompareSettings, args=argv, prog="jaxrl-reason compare")
    curves = [read_run_curve(folder, settings.x) for folder in settings.runs]
    curves = with_own_names(curves, settings.runs)
    until = settings.ahead * max(float(curve.x[-1]) for curve in curves)
    found = [(curve, curve.fit()) for curve in curves]
    print("\n".join(comparison_lines(found, settings.x, until)))
    print(plot_forecasts(found, settings.out, axis=settings.x, until=until))


def with_own_names(
    curves: Sequence[RunCurve], folders: Sequence[Path]
) -> list[RunCurve]:
    """The curves under the names of their runs, or their folders where two are alike.

    Args:
      curves: of the runs.
      folders: of the runs.
    """
    counts = Counter(curve.name for curve in curves)
    return [
        curve if counts[curve.name] == 1 else replace(curve, name=str(folder))
        for curve, folder in zip(curves, folders, strict=True)
    ]


def comparison_lines(
    runs: Sequence[tuple[RunCurve, SigmoidFit | None]], axis: str, until: float
) -> list[str]:
    """The lines of the table of runs.

    Args:
      runs: curves with their fits.
      axis: of the curves.
      until: where forecasts are given.
    """
    head = [
        "run",
        "evaluations",
        f"last, at {axis}",
        f"forecast at {until:.3g} ({BAND:.0%} band)",
        f"asymptote ({BAND:.0%} interval)",
    ]
    rows = [head, *(_row(curve, fit, until) for curve, fit in runs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return [line.rstrip() for line in [*lines, "", f"{axis}: {AXES[axis]}"]]


def _row(curve: RunCurve, fit: SigmoidFit | None, until: float) -> list[str]:
    error = "" if curve.errors is None else f" ± {100 * curve.errors[-1]:.1f}"
    last = f"{curve.accuracy[-1]:.1%}{error}, at {curve.x[-1]:.3g}"
    if fit is None:
        at, asymptote = f"needs {ENOUGH} evaluations", "-"
    else:
        at, asymptote = "too far", _band(*fit.asymptote_band())
        if until <= FARTHEST * curve.x[-1]:
            at = _band(*forecast(fit, np.array([until]))[:, 0])
    return [curve.name, str(len(curve.x)), last, at, asymptote]


def _band(low: float, median: float, high: float) -> str:
    return f"{median:.1%} ({low:.1%} to {high:.1%})"
