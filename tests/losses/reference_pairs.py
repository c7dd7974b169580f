"""Losses on pairs in NumPy float64, written plainly: one pair at a time."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def log_sigmoid(x: float) -> float:
    return -float(np.logaddexp(0.0, -x))


def mean_of_valid(per_pair: Callable[[int], float], valid: Array) -> float:
    """The mean of one number a valid row; 0 where there are none."""
    rows = np.flatnonzero(valid)
    return float(np.mean([per_pair(int(i)) for i in rows])) if len(rows) else 0.0


def logistic(d: float, beta: float, e: float = 0.0) -> float:
    return -(1 - e) * log_sigmoid(beta * d) - e * log_sigmoid(-beta * d)


def robust(d: float, beta: float, e: float) -> float:
    loss = -(1 - e) * log_sigmoid(beta * d) + e * log_sigmoid(-beta * d)
    return loss / (1 - 2 * e)


def nca(good: float, bad: float) -> float:
    return -log_sigmoid(good) - 0.5 * (log_sigmoid(-good) + log_sigmoid(-bad))


def log_odds(chosen: float, rejected: float) -> float:
    """Of two average log-probs."""

    def log_rest(a: float) -> float:
        return float(np.log1p(-np.exp(a)))

    return (chosen - rejected) - (log_rest(chosen) - log_rest(rejected))


def ranking(good: Array, bad: Array, good_mask: Array, bad_mask: Array) -> float:
    """Mean over the steps that have a pair of their pairs' mean."""
    steps = []
    for s in range(len(good)):
        pairs = [
            -log_sigmoid(good[s, i] - bad[s, j])
            for i in np.flatnonzero(good_mask[s])
            for j in np.flatnonzero(bad_mask[s])
        ]
        if pairs:
            steps.append(np.mean(pairs))
    return float(np.mean(steps)) if steps else 0.0


def implicit_prm(
    logprobs: Array, ref: Array, mask: Array, labels: Array, beta: float
) -> float:
    losses = []
    for i in range(len(logprobs)):
        at = np.flatnonzero(mask[i])
        if len(at):
            score = beta * sum(logprobs[i, t] - ref[i, t] for t in at)
            y = labels[i]
            losses.append(-y * log_sigmoid(score) - (1 - y) * log_sigmoid(-score))
    return float(np.mean(losses)) if losses else 0.0


def prime(
    rewards: Array,
    outcomes: Array,
    mask: Array,
    ids: Array,
    gamma: float = 1.0,
    process: float = 1.0,
    outcome: float = 1.0,
    own_token: bool = False,
) -> Array:
    """PRIME's formula, term by term; `own_token` is verl's way to leave one out."""
    out = np.zeros(rewards.shape)
    inside = [np.flatnonzero(row) for row in mask]
    for i in range(len(rewards)):
        others = [
            j
            for j in range(len(rewards))
            if j != i and ids[j] == ids[i] and len(inside[j])
        ]
        if not len(inside[i]) or not others:
            continue
        means = {j: np.mean(rewards[j, inside[j]]) for j in [i, *others]}
        base = sum(means[j] for j in others) / len(others)
        more = outcomes[i] - np.mean([outcomes[j] for j in others])
        r = rewards[i, inside[i]] - base
        if own_token:
            r = r + (rewards[i, inside[i]] - means[i]) / len(others)
        for k, t in enumerate(inside[i]):
            later = sum(gamma**n * x for n, x in enumerate(r[k:]))
            out[i, t] = process * later + outcome * more
    return out
