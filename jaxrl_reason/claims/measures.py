"""Numbers of a run: a mean over some of its steps, or when it reached a goal."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxrl_reason.runs.metrics_log import Row

# The rows of a run -> one number; nan if the run has none.
Summary = Callable[[Sequence[Row]], float]


@dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
      name: as it stands in a table.
      unit: of the number.
      of: computes it from the rows.
      digits: after the point, in tables.
    """

    name: str
    unit: str
    of: Summary
    digits: int = 2


def known_mean(values: Sequence[float]) -> float:
    """Mean of the values that are not nan; nan if there is none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def over_steps(metric: str, first: int, last: int) -> Summary:
    """Mean of a metric over the steps `first` to `last`, where it is known.

    Args:
      metric: name in the rows.
      first: step, from 1.
      last: step, included.

    Example:
      >>> over_steps("x", 2, 3)([{"x": 1.0}, {"x": 2.0}, {"y": 0.0}])
      2.0
    """

    def summary(rows: Sequence[Row]) -> float:
        return known_mean([r[metric] for r in rows[first - 1 : last] if metric in r])

    return summary


def first_row(
    metric: str,
    reached: Callable[[Sequence[Row]], bool],
    *,
    never: float = math.nan,
    scale: float = 1.0,
) -> Summary:
    """A metric at the first row that a goal is reached with, times `scale`.

    Args:
      metric: name in the rows.
      reached: of the rows so far, whether that is so.
      never: what a run has that does not reach it.
      scale: of the number.

    Example:
      >>> found = first_row("step", lambda rows: rows[-1]["x"] > 1, never=9.0)
      >>> found([{"step": 1, "x": 0.5}, {"step": 2, "x": 1.5}])
      2.0
    """

    def summary(rows: Sequence[Row]) -> float:
        for n in range(1, len(rows) + 1):
            if reached(rows[:n]):
                return scale * rows[n - 1][metric]
        return never

    return summary
