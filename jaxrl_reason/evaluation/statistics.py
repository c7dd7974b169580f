"""Statistics of an evaluation with 95% intervals over its questions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxrl_reason.evaluation.records import Record
from jaxrl_reason.losses import majority_at_k, pass_at_k

RESAMPLES = 2000
WILSON, BOOTSTRAP = "Wilson", "bootstrap over questions"
_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval.

    Attributes:
      value: of the statistic; nan if it is not defined.
      low: lower end of the 95% interval.
      high: upper end.
      interval: the kind of interval.
      count: number of questions.
    """

    value: float
    low: float
    high: float
    interval: str
    count: int


def wilson(right: int, count: int) -> Estimate:
    """Fraction of right answers with the Wilson score interval.

    (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96. Unlike
    p +- 1.96 standard errors it has a positive width if no answer, or every answer, is
    right.

    Args:
      right: number of right answers.
      count: number of independent questions.

    Returns:
      The Estimate; nan without questions.

    Raises:
      ValueError: `right` is not from 0 to `count`.

    Example:
      >>> found = wilson(0, 30)
      >>> found.value, found.low, round(found.high, 3)
      (0.0, 0.0, 0.114)
    """
    if not 0 <= right <= count:
        raise ValueError(f"right must be from 0 to {count}, got {right}")
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, WILSON, 0)
    fraction, scale = right / count, 1 + _Z**2 / count
    centre = (fraction + _Z**2 / (2 * count)) / scale
    half = (
        _Z
        * math.sqrt(fraction * (1 - fraction) / count + (_Z / (2 * count)) ** 2)
        / scale
    )
    # Exact at the ends, where centre and half cancel up to rounding.
    low = 0.0 if right == 0 else centre - half
    high = 1.0 if right == count else centre + half
    return Estimate(fraction, low, high, WILSON, count)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *columns: np.ndarray,
    interval: str = BOOTSTRAP,
    seed: int = 0,
) -> Estimate:
    """A statistic with its percentile interval over 2000 resamples of the rows.

    Args:
      statistic: sums of the columns [..., one per column] -> value [...].
      *columns: [N] each, the rows' summands of each sum.
      interval: the name of the interval.
      seed: for resampling.

    Returns:
      The Estimate; nan without rows. Resamples in which the statistic is not defined
      are left out.

    Example:
      >>> found = bootstrap(np.divide, np.array([0.0, 1.0]), np.ones(2))
      >>> found.value, found.low, found.high
      (0.5, 0.0, 1.0)
    """
    count = len(columns[0])
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, interval, 0)
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*(np.asarray(column.sum()) for column in columns)))
        sums = np.empty((len(columns), RESAMPLES))
        for index in range(RESAMPLES):
            rows = rng.integers(count, size=count)
            sums[:, index] = [column[rows].sum() for column in columns]
        drawn = statistic(*sums)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), interval, count)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean over questions with its bootstrap interval; nan values are left out.

    Args:
      values: one per question.

    Returns:
      The Estimate.
    """
    column = np.array([value for value in values if not math.isnan(value)], float)
    return bootstrap(np.divide, column, np.ones(len(column)))


def greedy_figures(records: Mapping[int, Sequence[Record]]) -> dict[str, Estimate]:
    """Accuracy of one response per question.

    Args:
      records: question's id -> its one record.

    Returns:
      "accuracy", over the questions whose grade did not fail.
    """
    judged = [row for rows in records.values() for row in rows if not row["failed"]]
    return {"accuracy": wilson(sum(row["correct"] for row in judged), len(judged))}


def sampled_figures(records: Mapping[int, Sequence[Record]]) -> dict[str, Estimate]:
    """avg@n, pass@k and maj@n of n responses per question.

    Responses whose grade failed count neither as right nor as wrong and do not vote;
    truncated ones do not vote either. A question with fewer than k responses left is
    not in pass@k.

    Args:
      records: question's id -> its n records, n the same for all.

    Returns:
      "avg@n", "pass@k" for k = 1, 2, 4, ... and n, "maj@n".
    """
    groups = [list(rows) for rows in records.values()]
    if not groups:
        return {}
    n = len(groups[0])
    judged = [[row for row in rows if not row["failed"]] for rows in groups]
    counts = np.array([len(rows) for rows in judged])
    right = np.array([sum(row["correct"] for row in rows) for rows in judged])
    figures = {
        f"avg@{n}": mean_estimate((right / np.where(counts, counts, np.nan)).tolist())
    }
    ks = np.array(sorted({n, *(2**power for power in range(n.bit_length()))}))
    found = np.asarray(pass_at_k(counts[:, None], right[:, None], ks[None]))
    for k, column in zip(ks.tolist(), found.T, strict=True):
        figures[f"pass@{k}"] = mean_estimate(column.tolist())
    return {**figures, f"maj@{n}": mean_estimate([_majority(rows) for rows in judged])}


def _majority(rows: Sequence[Record]) -> float:
    """Whether the vote is right; nan without graded voters."""
    if not rows:
        return math.nan
    # A truncated response is never right, so its answer does not vote.
    answers = [None if row["truncated"] else row["parsed"] for row in rows]
    return majority_at_k(answers, [row["correct"] for row in rows])


def response_figures(records: Mapping[int, Sequence[Record]]) -> dict[str, float]:
    """Statistics of the responses.

    Args:
      records: question's id -> records.

    Returns:
      Numbers of questions, responses and failed grades, fractions of responses without
      a final answer and of truncated ones, mean length in tokens.
    """
    rows = [row for group in records.values() for row in group]
    total = max(len(rows), 1)
    return {
        "questions": len(records),
        "responses": len(rows),
        "failed_grades": sum(row["failed"] for row in rows),
        "no_answer": sum(not row["answered"] for row in rows) / total,
        "truncated": sum(row["truncated"] for row in rows) / total,
        "mean_length": sum(row["length"] for row in rows) / total,
    }
