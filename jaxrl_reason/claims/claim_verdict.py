"""What a few paired seeds say of a claim: an effect, its interval, a verdict.

Pure functions of arrays. docs/claims.md says why this test, with its error rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

# The chance that any one of FAMILY claims without an effect is shown.
FAMILY_LEVEL = 0.05
# Comparisons that the level is divided by. Fixed ahead, so that a verdict does not
# change when another claim is added or run.
FAMILY = 20
LEVEL = FAMILY_LEVEL / FAMILY


class Verdict(IntEnum):
    """What a claim's runs say; the value is the exit status of the command."""

    SHOWN = 0
    REFUTED = 1
    UNRESOLVED = 2


@dataclass(frozen=True)
class Effect:
    """A difference between two arms, positive in the direction of the claim.

    Attributes:
      mean: over the seeds.
      low: lower end of the interval.
      high: upper end.
      seeds: number of pairs.
    """

    mean: float
    low: float
    high: float
    seeds: int


def paired_effect(
    treatment: ArrayLike,
    baseline: ArrayLike,
    *,
    direction: int = 1,
    level: float = LEVEL,
) -> Effect:
    """The mean difference of paired seeds with Student's interval.

    d_i = direction (treatment_i - baseline_i), mean(d) +- t s / sqrt(n), where s is
    the standard deviation of d (ddof 1) and t the quantile 1 - level with n - 1 degrees
    of freedom. Either end is missed with probability `level` where d is normal.

    Args:
      treatment: [n] the measure of one arm, a number a seed; nan if it is not defined.
      baseline: [n] of the other, with the same seeds in the same order.
      direction: 1 if the claim is that the treatment has more, -1 if less.
      level: of each side.

    Returns:
      The Effect; all nan if a number is nan.

    Raises:
      ValueError: shapes differ, fewer than 3 seeds, or a direction other than 1 and -1.

    Example:
      >>> effect = paired_effect([3.0, 4.0, 5.0], [1.0, 2.0, 2.0], level=0.025)
      >>> round(effect.mean, 3), round(effect.low, 3), round(effect.high, 3)
      (2.333, 0.899, 3.768)
    """
    a, b = np.asarray(treatment, float), np.asarray(baseline, float)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"two arms must have the same seeds, got shapes {a.shape} and {b.shape}"
        )
    if len(a) < 3:
        raise ValueError(f"an interval needs at least 3 seeds, got {len(a)}")
    if direction not in (1, -1):
        raise ValueError(f"direction must be 1 or -1, got {direction}")
    d = direction * (a - b)  # [n]
    half = stdtrit(len(d) - 1, 1 - level) * d.std(ddof=1) / math.sqrt(len(d))
    mean = float(d.mean())
    return Effect(mean, mean - float(half), mean + float(half), len(d))


def excess_effect(
    effect: tuple[ArrayLike, ArrayLike],
    control: tuple[ArrayLike, ArrayLike],
    *,
    direction: int = 1,
    level: float = LEVEL,
) -> Effect:
    """By how much an effect exceeds that of a control, paired by seed.

    `paired_effect` of the differences: that an effect is found in one comparison and
    not in another does not say that the two differ.

    Args:
      effect: treatment and baseline, [n] each.
      control: treatment and baseline of the control, [n] each, the same seeds.
      direction: as of `paired_effect`.
      level: of each side.

    Returns:
      The Effect.

    Raises:
      ValueError: as `paired_effect`.

    Example:
      >>> claimed, control = ([3.0, 4.0, 5.0], [1.0, 2.0, 2.0]), ([1, 1, 1], [1, 1, 1])
      >>> round(excess_effect(claimed, control).mean, 3)
      2.333
    """
    (a, b), (c, d) = ([np.asarray(x, float) for x in two] for two in (effect, control))
    return paired_effect(a - b, c - d, direction=direction, level=level)


def judge(
    effect: Effect, smallest: float, controls: Sequence[tuple[Effect, Effect]] = ()
) -> Verdict:
    """The verdict on a claim.

    Refuted if the interval lies below the smallest effect that counts. Shown if it lies
    above 0 and reaches that size, and for each control the excess over it lies above 0
    and the control is not itself shown. Unresolved otherwise, also where a number is
    nan.

    Args:
      effect: of the claim's comparison.
      smallest: the smallest effect that counts, > 0.
      controls: of comparisons that must not show it, in the same direction: the effect,
        and the `excess_effect` over it.

    Raises:
      ValueError: `smallest` is not above 0.

    Example:
      >>> judge(Effect(2.0, 0.5, 3.5, 5), 1.0).name
      'SHOWN'
      >>> judge(Effect(0.4, 0.1, 0.7, 5), 1.0).name
      'REFUTED'
      >>> as_large = Effect(1.9, 0.4, 3.4, 5), Effect(0.1, -1.0, 1.2, 5)
      >>> judge(Effect(2.0, 0.5, 3.5, 5), 1.0, [as_large]).name
      'UNRESOLVED'
    """
    if not smallest > 0:
        raise ValueError(f"the smallest effect that counts must be > 0, got {smallest}")
    if effect.high < smallest:
        return Verdict.REFUTED
    passed = all(
        excess.low > 0 and not (control.low > 0 and control.high >= smallest)
        for control, excess in controls
    )
    return Verdict.SHOWN if effect.low > 0 and passed else Verdict.UNRESOLVED


def seed_noise(values: ArrayLike) -> float:
    """The difference that two halves of the seeds of one arm show by themselves.

    The root mean square of mean(half) - mean(other half) over all ways to part the n
    seeds into a = floor(n / 2) and b = n - a: s sqrt(1 / a + 1 / b), s the standard
    deviation (ddof 1).

    Args:
      values: [n] the measure of an arm, a number a seed.

    Raises:
      ValueError: fewer than 2 seeds.

    Example:
      >>> round(seed_noise([1.0, 3.0]), 6)
      2.0
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or len(x) < 2:
        raise ValueError(f"noise needs at least 2 seeds, got shape {x.shape}")
    a = len(x) // 2
    return float(x.std(ddof=1) * math.sqrt(1 / a + 1 / (len(x) - a)))
