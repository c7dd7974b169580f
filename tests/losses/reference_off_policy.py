"""The off-policy objectives in NumPy float64, row by row and token by token.

`at` stands for log-probs under a stop_gradient, as in `reference_objectives`.
"""

from collections.abc import Callable

import numpy as np

from tests.losses.reference import Array, per_token, unmasked, where


def binary_tv(p: float, q: float) -> float:
    return abs(q - p)


def binary_kl(p: float, q: float) -> float:
    """Of two coins: q that sampled, p that is trained."""
    return sum(b * np.log(b / a) for a, b in ((p, q), (1 - p, 1 - q)) if b > 0)


def dppo(
    new: Array,
    old: Array,
    a: Array,
    mask: Array,
    divergence: Callable[[float, float], float],
    low: float,
    high: float,
) -> Array:
    a, out = per_token(a, mask), np.zeros(mask.shape)
    for i in range(len(new)):
        for t in unmasked(mask, i):
            p, q = (np.exp(min(x[i, t], 0.0)) for x in (new, old))
            ratio, d = np.exp(new[i, t] - old[i, t]), divergence(p, q)
            up = a[i, t] > 0 and ratio > 1 and d > high
            down = a[i, t] < 0 and ratio < 1 and d > low
            out[i, t] = 0.0 if up or down else -ratio * a[i, t]
    return out


def pull(new: Array, old: Array, mask: Array) -> Array:
    return where(mask, where(mask, new - old) ** 2)


def kimi_k2_5(
    new: Array,
    old: Array,
    a: Array,
    mask: Array,
    low: float,
    high: float,
    coef: float,
) -> Array:
    d = where(mask, new - old)
    ratio = np.exp(np.clip(d, low, high))
    return where(mask, -per_token(a, mask) * ratio + coef * d**2)


def vespo(
    new: Array,
    at: Array,
    old: Array,
    a: Array,
    mask: Array,
    positive: tuple[float, float] = (2.0, 3.0),
    negative: tuple[float, float] = (3.0, 2.0),
) -> Array:
    a, out = per_token(a, mask), np.zeros(mask.shape)
    for i in range(len(new)):
        tokens = unmasked(mask, i)
        w = np.exp(sum(at[i, t] - old[i, t] for t in tokens))
        for t in tokens:
            c1, c2 = negative if a[i, t] < 0 else positive
            out[i, t] = -(w**c1) * np.exp(c2 * (1 - w)) * a[i, t] * new[i, t]
    return out


def behaviour_weights(
    old: Array, sampler: Array, mask: Array, cap: float, truncate: bool
) -> Array:
    u = np.exp(where(mask, old - sampler))
    return where(mask, np.minimum(u, cap) if truncate else np.where(u > cap, 0.0, u))
