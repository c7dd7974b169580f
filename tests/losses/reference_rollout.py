"""Rollout correction and shaped rewards in NumPy float64: loops instead of tricks."""

import numpy as np

from tests.losses.reference import unmasked, where

Array = np.ndarray


def log_weights(old: Array, sampler: Array, mask: Array, kind: str) -> Array:
    out = np.zeros(mask.shape)
    for i in range(len(mask)):
        at = unmasked(mask, i)
        log_u = [float(old[i, t]) - float(sampler[i, t]) for t in at]
        out[i, at] = sum(log_u) if kind == "sequence" else log_u
    return np.clip(out, -20, 20)


def truncated(
    old: Array, sampler: Array, mask: Array, kind: str = "token", cap: float = 2.0
) -> Array:
    return where(mask, np.minimum(np.exp(log_weights(old, sampler, mask, kind)), cap))


def masked(
    old: Array, sampler: Array, mask: Array, low: float, high: float, kind: str
) -> Array:
    u = np.exp(log_weights(old, sampler, mask, kind))
    return where(mask, np.where((low <= u) & (u <= high), u, 0.0))


def row_statistic(kind: str, old: Array, sampler: Array, mask: Array) -> Array:
    """Geometric mean, product or mean k3 of u, one per row; 1 or 0 for empty rows."""
    out = np.full(len(mask), 0.0 if kind == "k3" else 1.0)
    for i in range(len(mask)):
        log_u = log_weights(old, sampler, mask, "token")[i, unmasked(mask, i)]
        if len(log_u) and kind == "geometric":
            out[i] = np.exp(log_u).prod() ** (1 / len(log_u))
        elif len(log_u) and kind == "sequence":
            out[i] = np.exp(log_u).prod()
        elif len(log_u):
            out[i] = np.mean(np.expm1(log_u) - log_u)
    return out


def cosine(n: float, length: float, short: float, long: float) -> float:
    return long + (short - long) / 2 * (1 + np.cos(np.pi * min(n / length, 1.0)))


def kimi(lengths: Array, correct: Array, ids: Array, valid: Array) -> Array:
    out = np.zeros(len(lengths))
    for i, n in enumerate(lengths):
        group = [
            m for m, g, v in zip(lengths, ids, valid, strict=True) if g == ids[i] and v
        ]
        if not valid[i] or min(group) == max(group):
            continue
        lam = 0.5 - (n - min(group)) / (max(group) - min(group))
        out[i] = lam if correct[i] else min(0.0, lam)
    return out


def repeats(tokens: Array, mask: Array, n: int) -> tuple[Array, Array]:
    """Fraction of repeated n-grams per row, and which tokens are part of one."""
    fraction, part = np.zeros(len(tokens)), np.zeros(tokens.shape, bool)
    for i in range(len(tokens)):
        seen: set[tuple[int, ...]] = set()
        total = again = 0
        for t in range(tokens.shape[1] - n + 1):
            if not mask[i, t : t + n].all():
                continue
            gram = tuple(tokens[i, t : t + n].tolist())
            total += 1
            if gram in seen:
                again += 1
                part[i, t : t + n] = True
            seen.add(gram)
        fraction[i] = again / total if total else 0.0
    return fraction, part


def difficulty(passed: Array, levels: Array, scores: list[float], soft: bool) -> float:
    total, clean = 0.0, True
    for level, score in enumerate(scores):
        tests = [p for p, lv in zip(passed, levels, strict=True) if lv == level]
        clean = clean and all(tests)
        if tests:
            total += score * (np.mean(tests) if soft else float(clean))
    return total
