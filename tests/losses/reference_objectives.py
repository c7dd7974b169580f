"""The policy objectives in NumPy float64, row by row and token by token.

Where a formula holds a stop_gradient, the frozen log-probs come in as `at`: the value
is that of `new`, and a numerical derivative in `new` leaves `at` where it is.
"""

import numpy as np

from tests.losses.reference import per_token, where

Array = np.ndarray


def unmasked(mask: Array, i: int) -> list[int]:
    return [t for t in range(mask.shape[1]) if mask[i, t] > 0]


def sequence_ratios(new: Array, old: Array, mask: Array) -> Array:
    """[B] geometric means, 1 for an empty row."""
    out = np.ones(len(new))
    for i in range(len(new)):
        d = [new[i, t] - old[i, t] for t in unmasked(mask, i)]
        if d:
            out[i] = np.exp(np.mean(d))
    return out


def pessimistic(a: float, ratio: float, low: float, high: float) -> float:
    return max(-a * ratio, -a * min(max(ratio, low), high))


def gspo_sequences(
    new: Array,
    old: Array,
    a: Array,
    mask: Array,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Array:
    """[B]: the loss of each sequence, as the paper's equation 5."""
    s = sequence_ratios(new, old, mask)
    return np.array(
        [pessimistic(x, r, 1 - low, 1 + high) for x, r in zip(a, s, strict=True)]
    )


def gspo_tokens(
    new: Array,
    at: Array,
    old: Array,
    a: Array,
    mask: Array,
    low: float = 3e-4,
    high: float = 4e-4,
) -> Array:
    """[B, T]: the token form, sg(s_i) pi / sg(pi)."""
    s, a, out = sequence_ratios(at, old, mask), per_token(a, mask), np.zeros(mask.shape)
    for i in range(len(new)):
        for t in unmasked(mask, i):
            ratio = s[i] * np.exp(new[i, t] - at[i, t])
            out[i, t] = pessimistic(a[i, t], ratio, 1 - low, 1 + high)
    return out


def gmpo_sequences(
    new: Array, old: Array, a: Array, mask: Array, low: float = 0.4, high: float = 0.4
) -> Array:
    """[B]: -A exp(mean of the one-sidedly clipped log-ratios)."""
    out = np.zeros(len(new))
    for i in range(len(new)):
        sign, d = np.sign(a[i]), []
        for t in unmasked(mask, i):
            x = new[i, t] - old[i, t]
            d.append(sign * min(sign * x, sign * min(max(x, -low), high)))
        out[i] = -a[i] * np.exp(np.mean(d)) if d else 0.0
    return out


def unmasked_row_mean(x: Array, mask: Array) -> float:
    rows = [x[i] for i in range(len(x)) if unmasked(mask, i)]
    return float(np.mean(rows)) if rows else 0.0


def cispo(
    new: Array,
    at: Array,
    old: Array,
    a: Array,
    mask: Array,
    low: float = 0.0,
    high: float = 5.0,
) -> Array:
    weight = np.clip(np.exp(where(mask, at - old)), low, high)
    return where(mask, -weight * per_token(a, mask) * where(mask, new))


def sapo(
    new: Array,
    old: Array,
    a: Array,
    mask: Array,
    positive: float = 1.0,
    negative: float = 1.05,
) -> Array:
    a, ratio = per_token(a, mask), np.exp(where(mask, new - old))
    tau = np.where(a > 0, positive, negative)
    return where(mask, -a * 4 / tau / (1 + np.exp(-tau * (ratio - 1))))


def covariance(new: Array, a: Array, mask: Array) -> Array:
    on = mask > 0
    a = per_token(a, mask)
    return where(mask, (a - a[on].mean()) * (new - new[on].mean()))


def top(scores: Array, mask: Array, fraction: float) -> Array:
    """The highest unmasked tokens, one after the other."""
    out = np.zeros(mask.shape, bool)
    at = [(i, t) for i in range(len(mask)) for t in unmasked(mask, i)]
    number = max(1, int(fraction * len(at) + 1e-9))
    for i, t in sorted(at, key=lambda it: -scores[it])[:number]:
        out[i, t] = True
    return out


def kl_cov(
    new: Array, old: Array, a: Array, mask: Array, selected: Array, coef: float = 1.0
) -> Array:
    d = where(mask, new - old)
    penalty = np.where(selected, np.abs(d), 0.0)
    return where(mask, -per_token(a, mask) * np.exp(d) + coef * penalty)


def positive_nll(new: Array, mask: Array, correct: Array, tokens: float) -> float:
    total = sum(-new[i, t] for i in np.flatnonzero(correct) for t in unmasked(mask, i))
    return float(total / max(tokens, 1))
