"""ScaleRL's sigmoid of accuracy over compute, fitted with a band (arXiv 2510.13786).

The fit is a posterior on a grid instead of one best curve: before a run has levelled
off, very different asymptotes fit its points about equally well, and a band has to
hold them all. And no run is a sigmoid: what lies ahead drifts from the curve. Arrays
in, arrays out; the same arrays give the same numbers.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_ndtr, logit, ndtr, ndtri

# Measurements that a fit needs: its curve has four parameters, the noise one.
ENOUGH = 6
BAND = 0.8
DRAWS = 2000
# Standard deviations of what lies ahead, about the curve: of a drift, in logits for the
# first factor e of compute, and of how much faster or slower the curve goes on than it
# went over the last factor 2, as a fraction. Chosen on real curves of toys
# (tests/runs/make_stored_curves.py): without both, a band held 30% of the measurements
# instead of 80%.
DRIFT, TREND = 0.3, 0.8
# The grid. The scale is that of the variance of a measurement.
_EXPONENTS = np.geomspace(0.5, 8.0, 40)
_MIDPOINTS = 96
_SCALES = np.geomspace(1 / 16, 16, 9)
# Standard deviations of priors: of R_0 about the first measurement, of A about 0.5
# (inside of [0, 1], where that is nearly uniform), of log scale about 0.
_START_SPREAD, _ASYMPTOTE_SPREAD, _SCALE_SPREAD = 0.25, 1.0, 1.0
_NO_ERRORS = 0.03  # where nobody says how exact a measurement is


@dataclass(frozen=True)
class SigmoidFit:
    """The posterior of a sigmoid as D draws of its parameters.

    Attributes:
      start: [D] R_0, accuracy without training, in [0, 1].
      asymptote: [D] A, accuracy at unlimited compute, in [0, 1].
      exponent: [D] B, steepness.
      midpoint: [D] C_mid, compute at which half of the gain is there.
      scale: [D] variance of a measurement over that of its standard error.
      trials: independent answers whose binomial errors are the standard errors.
      first: compute of the first measurement that was fitted.
      last: compute of the last one.
      count: measurements, those that were left out included.
    """

    start: np.ndarray
    asymptote: np.ndarray
    exponent: np.ndarray
    midpoint: np.ndarray
    scale: np.ndarray
    trials: float
    first: float
    last: float
    count: int

    def asymptote_band(self, level: float = BAND) -> tuple[float, float, float]:
        """The asymptote's median with the ends of its interval (low, median, high)."""
        low, median, high = np.quantile(self.asymptote, _ends(level))
        return float(low), float(median), float(high)


def sigmoid(
    compute: np.ndarray,
    start: np.ndarray,
    asymptote: np.ndarray,
    exponent: np.ndarray,
    midpoint: np.ndarray,
) -> np.ndarray:
    """R_0 + (A - R_0) / (1 + (C_mid / C)^B): accuracy over compute.

    arXiv 2510.13786, equation 1. The arguments broadcast.

    Args:
      compute: C >= 0, in any unit.
      start: R_0.
      asymptote: A.
      exponent: B.
      midpoint: C_mid > 0, in the unit of `compute`.

    Returns:
      The accuracies; R_0 where the compute is 0.

    Example:
      >>> sigmoid(np.array([0.0, 5.0, 1e9]), 0.2, 0.6, 1.5, 5.0).round(3).tolist()
      [0.2, 0.4, 0.6]
    """
    gained = _gained(np.asarray(compute, float), exponent, np.log(midpoint))
    return np.asarray(start + (asymptote - start) * gained)


def fit_sigmoid(
    compute: np.ndarray, accuracy: np.ndarray, errors: np.ndarray | None = None
) -> SigmoidFit:
    """Fits a run's accuracies: the posterior of the sigmoid's parameters.

    The first quarter is left out as far as `ENOUGH` measurements remain: the paper
    leaves out the first part of a run too, which is no part of the sigmoid.

    A measurement is normal about the curve with variance scale * error^2. Priors: A is
    nearly uniform in [0, 1], so that a run may also get worse; log B and log C_mid are
    uniform (B from 0.5 to 8, C_mid from an eighth of the first compute to 20 times the
    last); R_0 is normal about the first measurement with standard deviation 0.25; log
    scale is normal about 0 with standard deviation 1, so that the scatter of the points
    says how far the standard errors hold. The paper takes the best point of a grid of A
    and C_mid; this keeps the whole grid, weighted by the likelihood.

    Args:
      compute: [n] >= 0, in any unit, rising. A measurement before training has 0.
      accuracy: [n] in [0, 1].
      errors: [n] standard errors > 0; None if they are not known.

    Returns:
      The fit.

    Raises:
      ValueError: other shapes, fewer than `ENOUGH` measurements, compute that does
        not rise, accuracies outside of [0, 1], or errors that are not positive.

    Example:
      >>> steps = np.arange(0, 80, 5)
      >>> truth = sigmoid(steps, 0.2, 0.6, 1.5, 20.0)
      >>> fit = fit_sigmoid(steps, truth, np.full(16, 0.02))
      >>> low, median, high = forecast(fit, np.array([160.0]))[:, 0]
      >>> bool(low < sigmoid(160, 0.2, 0.6, 1.5, 20.0) < high)
      True
    """
    x, y, s = _checked(compute, accuracy, errors)
    early = max(0, min(len(x) // 4, len(x) - ENOUGH))
    x, y, s = x[early:], y[early:], s[early:]
    positive = x[x > 0]
    ends = np.log(positive[0] / 8), np.log(positive[-1] * 20)
    exponents = np.repeat(_EXPONENTS, _MIDPOINTS)  # [cells]
    midpoints = np.tile(np.linspace(*ends, _MIDPOINTS), len(_EXPONENTS))  # [cells]
    gained = _gained(x, exponents[:, None], midpoints[:, None])  # [cells, n]
    linear = _linear_posterior(gained, y, s)
    picked = _systematic(linear.weights.reshape(-1))
    cell, scale = np.unravel_index(picked, linear.weights.shape)
    start, asymptote = linear.draws(cell, scale)
    return SigmoidFit(
        start=start,
        asymptote=asymptote,
        exponent=exponents[cell],
        midpoint=np.exp(midpoints[cell]),
        scale=_SCALES[scale],
        trials=_trials(y, s),
        first=float(x[0]),
        last=float(x[-1]),
        count=len(x) + early,
    )


def forecast(
    fit: SigmoidFit, compute: np.ndarray, *, level: float = BAND
) -> np.ndarray:
    """What would be measured at some compute: a median and a band.

    The band holds what is unknown of the curve, the noise of a measurement, and beyond
    the last measurement how far a run leaves its curve: with u = ln(C / C_last) and v
    the curve's rise in logits over the last factor 2 of compute, divided by ln 2, the
    logit of the accuracy is normal about that of the curve with variance `DRIFT`^2 u +
    (`TREND` v u)^2. A run that has levelled off has a narrow band, one that still rises
    a wide one. Both ends are half an answer wider, as measurements are whole answers.

    Args:
      fit: of the measurements so far.
      compute: [m] in the fit's unit.
      level: probability of the band, in (0, 1).

    Returns:
      [3, m] lower end, median, upper end, in [0, 1].

    Raises:
      ValueError: the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    compute = np.asarray(compute, float)
    logits = _logits(fit, compute)  # [D, m]
    latest = _logits(fit, np.array([fit.last / 2, fit.last]))  # [D, 2]
    trend = np.diff(latest, axis=1) / np.log(2)  # [D, 1]
    ahead = np.log(np.maximum(compute / fit.last, 1.0))  # [m]
    rng, draws = np.random.default_rng(1), len(logits)
    normal = ndtri((np.arange(draws) + 0.5) / draws)
    drifted, noisy = (rng.permutation(normal)[:, None] for _ in range(2))  # [D, 1]
    apart = np.sqrt(DRIFT**2 * ahead + (TREND * trend * ahead) ** 2)
    there = expit(logits + apart * drifted)
    spread = np.sqrt(fit.scale[:, None] * there * (1 - there) / fit.trials)
    ends = np.quantile(there + spread * noisy, _ends(level), axis=0)
    ends += 0.5 / fit.trials * np.array([-1.0, 0.0, 1.0])[:, None]  # whole answers
    return np.asarray(np.clip(ends, 0.0, 1.0))


def binomial_errors(accuracy: np.ndarray, answers: float) -> np.ndarray:
    """Standard errors of fractions of right answers: sqrt(p (1 - p) / n).

    Two right and two wrong answers are added to p, so that no error is 0.

    Args:
      accuracy: [n] in [0, 1].
      answers: independent ones of which each is a fraction, > 0.

    Returns:
      [n] > 0.

    Raises:
      ValueError: no answers.

    Example:
      >>> binomial_errors(np.array([0.0, 0.5]), 96).round(3).tolist()
      [0.014, 0.051]
    """
    if not answers > 0:
        raise ValueError(f"answers must be > 0, got {answers}")
    p = (np.asarray(accuracy, float) * answers + 2) / (answers + 4)
    return np.asarray(np.sqrt(p * (1 - p) / answers))


def _trials(y: np.ndarray, s: np.ndarray) -> float:
    """Answers of which `binomial_errors` would make these errors, in the mean."""
    answers = 0.25 / s**2
    for _ in range(50):  # half of a step in logs: whole ones go back and forth
        p = (y * answers + 2) / (answers + 4)
        answers = np.sqrt(answers * p * (1 - p)) / s
    return float(1 / np.mean(1 / answers))


def _logits(fit: SigmoidFit, compute: np.ndarray) -> np.ndarray:
    """[D, m] of the fit's curves, kept half a right answer from 0 and 1."""
    parameters = (fit.start, fit.asymptote, fit.exponent, fit.midpoint)
    curves = sigmoid(compute[None, :], *(x[:, None] for x in parameters))
    least = 0.5 / fit.trials
    return np.asarray(logit(np.clip(curves, least, 1 - least)))


def _gained(
    compute: np.ndarray, exponent: np.ndarray, log_midpoint: np.ndarray
) -> np.ndarray:
    """1 / (1 + (C_mid / C)^B), the fraction of the gain that is there; 0 at C = 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(expit(exponent * (np.log(compute) - log_midpoint)))


@dataclass(frozen=True)
class _Linear:
    """The posterior given B, C_mid and the scale, where the curve is linear.

    The precision of (R_0, A) is [[rr, ra], [ra, aa]], their mean its inverse times
    (r, a); A is inside of [0, 1]. All arrays are [cells, scales]; the weights, of B,
    C_mid and the scale, add up to 1.
    """

    rr: np.ndarray
    ra: np.ndarray
    r: np.ndarray
    asymptote: np.ndarray  # mean of A where it is not bounded
    spread: np.ndarray  # its standard deviation
    weights: np.ndarray

    def draws(
        self, cell: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """R_0 and A for each of these cells and scales."""
        rng = np.random.default_rng(0)
        mean, spread = self.asymptote[cell, scale], self.spread[cell, scale]
        flipped, low, high = _bounds(mean, spread)
        low, high = ndtr(low), ndtr(high)
        above = ndtri(low + rng.uniform(size=len(cell)) * (high - low)) * spread
        asymptote = np.clip(np.where(flipped, mean - above, mean + above), 0.0, 1.0)
        rr = self.rr[cell, scale]
        start = (self.r[cell, scale] - self.ra[cell, scale] * asymptote) / rr
        start = start + rng.standard_normal(len(cell)) / np.sqrt(rr)
        return np.clip(start, 0.0, 1.0), asymptote


def _linear_posterior(gained: np.ndarray, y: np.ndarray, s: np.ndarray) -> _Linear:
    """Integrates R_0 and A out of R_0 (1 - g) + A g.

    Args:
      gained: [cells, n] g.
      y: [n] accuracies.
      s: [n] standard errors.
    """
    left = 1 - gained

    def sums(values: np.ndarray) -> np.ndarray:  # [cells, scales]
        return np.asarray((values / s**2).sum(-1)[:, None] / _SCALES)

    of_start, of_asymptote = _START_SPREAD**-2, _ASYMPTOTE_SPREAD**-2
    rr, aa = sums(left**2) + of_start, sums(gained**2) + of_asymptote
    ra = sums(left * gained)
    r, a = sums(left * y) + of_start * y[0], sums(gained * y) + of_asymptote * 0.5
    det = rr * aa - ra**2
    explained = (aa * r**2 - 2 * ra * r * a + rr * a**2) / det
    mean, spread = (rr * a - ra * r) / det, np.sqrt(rr / det)
    squares = sums(y**2 + 0 * left) - explained + np.log(det)
    squares = (
        squares + len(y) * np.log(_SCALES) + (np.log(_SCALES) / _SCALE_SPREAD) ** 2
    )
    _, low, high = _bounds(mean, spread)
    less, all_of_it = log_ndtr(low), log_ndtr(high)
    inside = all_of_it + np.log1p(-np.exp(np.minimum(less - all_of_it, -1e-12)))
    log_weights = -0.5 * squares + inside
    weights = np.exp(log_weights - log_weights.max())
    return _Linear(rr, ra, r, mean, spread, weights / weights.sum())


def _bounds(
    mean: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """0 and 1 in standard deviations from a mean, in the lower tail of a normal.

    A mean below 0.5 is flipped to the other side: in the upper tail all is 1.
    """
    flipped = mean < 0.5
    upper = np.where(flipped, 1 - mean, mean)
    return flipped, -upper / spread, (1 - upper) / spread


def _systematic(weights: np.ndarray) -> np.ndarray:
    """[DRAWS] indices, each about as often as its weight says."""
    at = (np.arange(DRAWS) + 0.5) / DRAWS
    index = np.searchsorted(np.cumsum(weights), at)
    return np.asarray(np.minimum(index, len(weights) - 1))


def _ends(level: float) -> list[float]:
    return [(1 - level) / 2, 0.5, (1 + level) / 2]


def _checked(
    compute: np.ndarray, accuracy: np.ndarray, errors: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.asarray(compute, float), np.asarray(accuracy, float)
    s = np.full(y.shape, _NO_ERRORS) if errors is None else np.asarray(errors, float)
    if x.ndim != 1 or not x.shape == y.shape == s.shape:
        raise ValueError(
            f"compute, accuracy and errors must have one shape [n], got {x.shape}, "
            f"{y.shape} and {s.shape}"
        )
    if len(x) < ENOUGH:
        raise ValueError(f"a fit must have >= {ENOUGH} measurements, got {len(x)}")
    if not (np.isfinite(x).all() and x[0] >= 0 and (np.diff(x) > 0).all()):
        raise ValueError(f"compute must be >= 0 and rise, got {x.tolist()}")
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError(f"accuracy must be in [0, 1], got {y.tolist()}")
    if not ((s > 0) & np.isfinite(s)).all():
        raise ValueError(f"errors must be > 0, got {s.tolist()}")
    return x, y, s
