"""Statistics of an evaluation with 95% intervals over its questions."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxrl_reason.evaluation.records import Record
from jaxrl_reason.losses import majority_at_k, pass_at_k

RESAMPLES = 2000
WILSON = "Wilson"
_Z = 1.959963984540054  # the 97.5% quantile of the normal distribution
# (answer, answer) -> whether they are equal
Equal = Callable[[str, str], bool]


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


def wilson(right: float, count: float) -> Estimate:
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
    return Estimate(fraction, low, high, WILSON, round(count))


def bootstrap(
    statistic: Callable[..., np.ndarray],
    *columns: np.ndarray,
    interval: str,
    added: Sequence[Sequence[float]] = (),
    seed: int = 0,
) -> Estimate:
    """A statistic with its percentile interval over 2000 resamples of the rows.

    Where all rows are alike their resamples are too, and the interval would have no
    width. The added rows keep it from that: they are resampled with the others, but are
    not in the value.

    Args:
      statistic: sums of the columns [..., one per column] -> value [...].
      *columns: [N] each, the rows' summands of each sum.
      interval: the name of the interval.
      added: rows, each with a number per column.
      seed: for resampling.

    Returns:
      The Estimate; nan without rows. Resamples in which the statistic is not defined
      are left out.

    Example:
      >>> rows = np.array([0.0, 1.0]), np.ones(2)
      >>> found = bootstrap(np.divide, *rows, interval="bootstrap")
      >>> found.value, found.low, found.high
      (0.5, 0.0, 1.0)
    """
    count = len(columns[0])
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, interval, 0)
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*(np.asarray(column.sum()) for column in columns)))
        pool = np.array([*zip(*columns, strict=True), *added], float)
        sums = np.empty((len(columns), RESAMPLES))
        for index in range(RESAMPLES):
            rows = rng.integers(len(pool), size=len(pool))
            sums[:, index] = pool[rows].sum(axis=0)
        drawn = statistic(*sums)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    # The added rows pull a little to the middle.
    low, high = min(low, value), max(high, value)
    return Estimate(value, float(low), float(high), interval, count)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean over questions of fractions from 0 to 1, with a Wilson score interval.

    The interval of n / c independent right or wrong answers, where c = v / (p (1 - p))
    compares the variance v over questions with that of such answers of the same mean p;
    v and p with z^2 / 2 ones and as many zeros added, as in the interval itself. For
    values of 0 and 1 c is 1, so this is `wilson`. It always has a positive width.

    Args:
      values: one per question; nan values are left out.

    Returns:
      The Estimate.

    Raises:
      ValueError: a value is not from 0 to 1.

    Example:
      >>> found, usual = mean_estimate([0.0, 1.0, 1.0]), wilson(2, 3)
      >>> round(found.low, 9) == round(usual.low, 9)
      True
    """
    column = np.array([value for value in values if not math.isnan(value)], float)
    if column.size and not (column.min() >= 0 and column.max() <= 1):
        raise ValueError(
            f"values must be from 0 to 1, got {column.min()} to {column.max()}"
        )
    if not column.size:
        return wilson(0, 0)
    count, total = column.size + _Z**2, column.sum() + _Z**2 / 2
    mean = total / count
    variance = ((column**2).sum() + _Z**2 / 2) / count - mean**2
    effective = float(column.size * mean * (1 - mean) / variance)
    found = wilson(float(column.mean()) * effective, effective)
    return dataclasses.replace(found, value=float(column.mean()), count=column.size)


def greedy_figures(records: Mapping[int, Sequence[Record]]) -> dict[str, Estimate]:
    """Accuracy of one response per question.

    Args:
      records: question's id -> its one record.

    Returns:
      "accuracy" over all questions, a failed grade not being right; where grades have
      failed, "accuracy, graded" over the others as well.
    """
    return _both(records, _greedy)


def sampled_figures(
    records: Mapping[int, Sequence[Record]], equal: Equal = operator.eq
) -> dict[str, Estimate]:
    """avg@n, pass@k and maj@n of n responses per question.

    Truncated responses and those whose grade failed do not vote.

    Args:
      records: question's id -> its n records, n the same for all.
      equal: whether two answers are one in the vote.

    Returns:
      "avg@n", "pass@k" for k = 1, 2, 4, ... and n, "maj@n", over all responses, a
      failed grade not being right; where grades have failed, also "avg@n, graded" and
      so on over the others. There a question with fewer than k responses left is not in
      pass@k.
    """
    return _both(records, functools.partial(_sampled, equal=equal))


def _both(
    records: Mapping[int, Sequence[Record]],
    figures: Callable[[list[list[Record]], int], dict[str, Estimate]],
) -> dict[str, Estimate]:
    """The figures of all responses and, if there are failed grades, of the others."""
    rows = [list(group) for group in records.values()]
    if not rows:
        return {}
    n = len(rows[0])
    found = figures(rows, n)
    graded = [[row for row in group if not row["failed"]] for group in rows]
    if graded != rows:
        apart = figures(graded, n)
        found |= {f"{name}, graded": figure for name, figure in apart.items()}
    return found


def _greedy(groups: list[list[Record]], n: int) -> dict[str, Estimate]:
    rows = [row for group in groups for row in group]
    return {"accuracy": wilson(sum(map(_is_right, rows)), len(rows))}


def _sampled(groups: list[list[Record]], n: int, equal: Equal) -> dict[str, Estimate]:
    counts = np.array([len(rows) for rows in groups])
    right = np.array([sum(map(_is_right, rows)) for rows in groups])
    fractions = right / np.where(counts, counts, np.nan)
    figures = {f"avg@{n}": mean_estimate(fractions.tolist())}
    ks = np.array(sorted({n, *(2**power for power in range(n.bit_length()))}))
    found = np.asarray(pass_at_k(counts[:, None], right[:, None], ks[None]))
    for k, column in zip(ks.tolist(), found.T, strict=True):
        figures[f"pass@{k}"] = mean_estimate(np.clip(column, 0, 1).tolist())
    votes = [_majority(rows, equal) for rows in groups]
    return {**figures, f"maj@{n}": mean_estimate(votes)}


def _is_right(row: Record) -> bool:
    return bool(row["correct"] and not row["failed"])


def _majority(rows: Sequence[Record], equal: Equal) -> float:
    """Whether the vote is right; nan without responses."""
    if not rows:
        return math.nan
    # A truncated response is never right, so its answer does not vote.
    silent = [row["truncated"] or row["failed"] for row in rows]
    answers = [
        None if quiet else row["parsed"]
        for row, quiet in zip(rows, silent, strict=True)
    ]
    right = {row["parsed"] for row in rows if _is_right(row)}
    return majority_at_k(_classes(answers, right, equal), [_is_right(r) for r in rows])


def _classes(
    answers: Sequence[str | None], right: set[str], equal: Equal
) -> list[str | None]:
    """For each answer the first that is equal to it; the right ones all are."""
    known: dict[str, str] = dict.fromkeys(right, min(right, default=""))
    for answer in answers:
        if answer is not None and answer not in known:
            firsts = (
                first for first in dict.fromkeys(known.values()) if first not in right
            )
            known[answer] = next(
                (first for first in firsts if equal(first, answer)), answer
            )
    return [None if answer is None else known[answer] for answer in answers]


def response_figures(records: Mapping[int, Sequence[Record]]) -> dict[str, float]:
    """Statistics of the responses.

    Args:
      records: question's id -> records.

    Returns:
      Numbers of questions, responses, failed grades, questions too long to be asked and
      answers whose check ran into a bound (both not right), fractions of responses
      without a final answer and of truncated ones, mean length in tokens.
    """
    rows = [row for group in records.values() for row in group]
    total = max(len(rows), 1)
    return {
        "questions": len(records),
        "responses": len(rows),
        "failed_grades": sum(row["failed"] for row in rows),
        "too_long": len({r["problem_id"] for r in rows if r.get("too_long", False)}),
        "unchecked": sum(row.get("unchecked", False) for row in rows),
        "no_answer": sum(not row["answered"] for row in rows) / total,
        "truncated": sum(row["truncated"] for row in rows) / total,
        "mean_length": sum(row["length"] for row in rows) / total,
    }
