"""A run's held-out accuracy over its steps, tokens or compute, and its forecast."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from jaxrl_reason.runs.forecast import (
    ENOUGH,
    SigmoidFit,
    binomial_errors,
    fit_sigmoid,
    forecast,
)
from jaxrl_reason.runs.metrics_log import Row, read_metrics

ACCURACY, ERROR = "heldout/accuracy", "heldout/standard_error"
# Of an axis: what is below it in a picture.
AXES: Mapping[str, str] = {
    "steps": "RL step",
    "tokens": "sampled response tokens",
    "compute": "device-hours of training",
}
# How far a forecast looks, in multiples of what the run has done: ScaleRL fits the
# first half of a run and checks the second. Up to the farthest, bands were checked.
AHEAD, FARTHEST = 2.0, 2.5


@dataclass(frozen=True)
class RunCurve:
    """The evaluations of a run.

    Attributes:
      name: of the run.
      x: [n] steps, tokens or compute at each, rising; 0 before RL.
      accuracy: [n] fractions of held-out problems solved.
      errors: [n] their standard errors; None if they are not known.
    """

    name: str
    x: np.ndarray
    accuracy: np.ndarray
    errors: np.ndarray | None

    def fit(self) -> SigmoidFit | None:
        """The fitted sigmoid; None where there are fewer than `ENOUGH` evaluations."""
        if len(self.x) < ENOUGH:
            return None
        return fit_sigmoid(self.x, self.accuracy, self.errors)


def curve_of_rows(
    rows: Sequence[Row],
    *,
    axis: str = "steps",
    baseline: float | None = None,
    problems: int | None = None,
    devices: int = 1,
    name: str = "",
) -> RunCurve:
    """The evaluations in the rows of a run.

    Args:
      rows: of `read_metrics`.
      axis: one of `AXES`. Compute is the wall time of the steps without that of
        evaluations, times the devices.
      baseline: held-out accuracy before RL.
      problems: that were evaluated, for errors of rows that do not say theirs.
      devices: of the run.
      name: of the run.

    Returns:
      The curve; a row with an accuracy that is not finite is left out.

    Raises:
      ValueError: an axis that there is not, or whose column a row lacks.
    """
    totals = _totals(rows, axis, devices, name)
    found = [] if baseline is None else [(0.0, baseline, np.nan)]
    for so_far, row in zip(totals, rows, strict=True):
        accuracy = row.get(ACCURACY)
        if accuracy is not None and np.isfinite(accuracy):
            found.append((so_far, accuracy, row.get(ERROR, np.nan)))
    x, y, errors = np.array(found, float).reshape(-1, 3).T
    if problems:
        errors = np.where(np.isnan(errors), binomial_errors(y, problems), errors)
    return RunCurve(name, x, y, None if np.isnan(errors).any() else errors)


def read_run_curve(folder: str | Path, axis: str = "steps") -> RunCurve:
    """The evaluations of a run, from its folder.

    Args:
      folder: of the run.
      axis: one of `AXES`.

    Raises:
      ValueError: no run is there, it has no evaluations, or no column for the axis.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ValueError(f"a run must have a config.json, got none in {folder}")
    config = json.loads((path / "config.json").read_text("utf-8"))
    before, baseline, problems = path / "before.json", None, None
    if before.is_file():
        greedy = json.loads(before.read_text("utf-8")).get("greedy", {})
        baseline, problems = greedy.get("value"), greedy.get("count")
    curve = curve_of_rows(
        read_metrics(path / "metrics.jsonl"),
        axis=axis,
        baseline=baseline,
        problems=problems,
        devices=config.get("devices", {}).get("count", 1),
        name=path.name or str(path.resolve().name),
    )
    if len(curve.x) <= (baseline is not None):
        raise ValueError(
            f"a run must have evaluations ({ACCURACY} in rows of metrics.jsonl), got "
            f"none in {folder}"
        )
    return curve


def forecast_of(curve: RunCurve, fit: SigmoidFit) -> dict[str, float]:
    """A run's forecast for its report, as numbers with names.

    Args:
      curve: by steps.
      fit: of it.
    """
    step = AHEAD * float(curve.x[-1])
    low, median, high = forecast(fit, np.array([step]))[:, 0].tolist()
    least, asymptote, most = fit.asymptote_band()
    return {
        "evaluations": fit.count,
        "step": step,
        "accuracy": median,
        "accuracy_low": low,
        "accuracy_high": high,
        "asymptote": asymptote,
        "asymptote_low": least,
        "asymptote_high": most,
    }


def _totals(rows: Sequence[Row], axis: str, devices: int, name: str) -> Sequence[float]:
    """What was done up to the end of each row."""
    if axis not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}, got {axis}")
    if axis == "steps":
        return [row["step"] for row in rows]
    column = "rollout/tokens" if axis == "tokens" else "time/step_s"
    without = [row["step"] for row in rows if column not in row]
    if without:
        raise ValueError(
            f"every row{f' of {name}' if name else ''} must have {column} for the axis "
            f"{axis}, got none in step {without[0]:g}"
        )
    if axis == "tokens":
        return list(accumulate(row[column] for row in rows))
    seconds = (row[column] - row.get("time/evaluate_s", 0.0) for row in rows)
    return list(accumulate(devices * x / 3600 for x in seconds))
