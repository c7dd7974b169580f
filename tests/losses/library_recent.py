"""Conventions of the methods of 2026, of soft masks and of sums over tokens."""

import numpy as np

from tests.losses.library_formulas import (
    LENGTHS,
    RATIO,
    A,
    k3,
    log_sigmoid,
    same,
    token_mean,
)
from tests.losses.worked import ADVANTAGES, MASK, NEW, OLD, REF, SAMPLER

PI, MU = np.exp(NEW), np.exp(OLD)
D = NEW - REF
TOKENS = MASK.sum()
# The geometric mean of each row's ratios.
S = np.exp(((NEW - OLD) * MASK).sum(1) / LENGTHS)
ONE = np.array([1.0, 0, 0, 0])
SPREAD = np.array([1, 0, 0.25, 0.75])
SOFT = np.array([[1, 0.5, 0.5, 0.25], [1, 0.25, 0, 0], [0.5, 1, 1, 0], [0.75, 0, 0, 0]])
VALUES = np.array([[1, 2, 3, 4], [5, 6, 0, 0], [7, 8, 9, 0], [10, 0, 0, 0]], float)


# Advantages.


@same("maxrl-paper")
def _() -> np.ndarray:
    return (ONE - ONE.mean()) / ONE.mean()


@same("maxrl-skyrl")
def _() -> np.ndarray:
    return (ONE - ONE.mean()) / (ONE.mean() + 1e-6)


@same("pass-at-k-paper")
def _() -> np.ndarray:
    best = [SPREAD.max() - np.delete(SPREAD, i).max() for i in range(4)]
    return np.array(best)


@same("pass-at-k-verl")
def _() -> np.ndarray:
    first, second = sorted(SPREAD)[-1], sorted(SPREAD)[-2]
    gap = (first - second) / (SPREAD.std(ddof=1) + 1e-6)
    return np.where(first == SPREAD, gap, 0.0)


# Losses.


def kept(divergence: np.ndarray, delta: float) -> np.ndarray:
    leaves = np.where(A > 0, PI > MU, PI < MU) & (divergence > delta)
    return MASK * ~leaves


def binary_kl() -> np.ndarray:
    # All probabilities of the fixture are inside (0, 1) where its mask is 1.
    p, q = (np.where(MASK, x, 0.5) for x in (PI, MU))
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))


@same("dppo-tv-paper")
def _() -> float:
    return token_mean(-A * RATIO * kept(np.abs(PI - MU), 0.1))


@same("dppo-kl-paper")
def _() -> float:
    return token_mean(-A * RATIO * kept(binary_kl(), 0.05))


@same("dppo-verl")
def _() -> float:
    return token_mean(-A * np.minimum(RATIO, 20) * NEW * kept(np.abs(PI - MU), 0.1))


@same("dppo-prime-rl")
def _() -> float:
    mask = kept(np.abs(PI - MU), 0.2)
    return token_mean(-A * RATIO * mask + 1e-3 * (NEW - OLD) ** 2)


@same("vespo-paper")
def _() -> float:
    w = np.exp(((NEW - OLD) * MASK).sum(1))
    good = ADVANTAGES >= 0
    c1, c2 = np.where(good, 2.0, 3.0), np.where(good, 3.0, 2.0)
    phi = w**c1 * np.exp(c2 * (1 - w))
    return token_mean(-phi[:, None] * A * NEW)


@same("luspo-paper")
def _() -> float:
    clipped = np.clip(S, 1 - 2e-3, 1 + 2.5e-3)
    return np.mean(np.maximum(-ADVANTAGES * S, -ADVANTAGES * clipped) * LENGTHS)


@same("kimi-k2-5-paper")
def _() -> float:
    ratio = np.exp(np.clip(NEW - OLD, -0.7, 0.7))
    return token_mean(-A * ratio + 0.01 * (NEW - OLD) ** 2)


@same("decoupled-areal")
def _() -> float:
    u = np.exp(OLD - SAMPLER)
    surrogate = np.maximum(-A * RATIO, -A * np.clip(RATIO, 0.8, 1.2))
    return token_mean(np.where(u <= 2, u, 0) * surrogate)


@same("gspo-sum-skyrl")
def _() -> float:
    clipped = np.clip(S, 0.8, 1.2)
    return (np.maximum(-ADVANTAGES * S, -ADVANTAGES * clipped) * LENGTHS).sum()


def sapo() -> np.ndarray:
    tau = np.where(A > 0, 1.0, 1.05)
    return -A * 4 / tau * np.exp(log_sigmoid(tau * (RATIO - 1)))


@same("sapo-sum-skyrl")
def _() -> float:
    return (sapo() * MASK).sum()


@same("sapo-token-mean")
def _() -> float:
    return token_mean(sapo())


# KL.


@same("kl-abs-verl")
def _() -> float:
    return token_mean(np.abs(D))


@same("kl-abs-gradient")
def _() -> np.ndarray:
    return np.sign(D) * MASK / TOKENS


@same("k3-on-policy-nemo")
def _() -> np.ndarray:
    # k3 times exp(x - sg(x)): the slope of both factors is k3 + (1 - exp(-d)) = d.
    return (k3(NEW, REF) + 1 - np.exp(-D)) * MASK / TOKENS


@same("k3-sequence-trl")
def _() -> float:
    return token_mean(S[:, None] * k3(NEW, REF))


# Soft masks.


@same("soft-mask-mean")
def _() -> float:
    return (SOFT * VALUES).sum() / SOFT.sum()


@same("soft-mask-sum-skyrl")
def _() -> float:
    return (SOFT * k3(NEW, REF) * MASK).sum()


@same("soft-mask-loss")
def _() -> float:
    surrogate = np.maximum(-A * RATIO, -A * np.clip(RATIO, 0.8, 1.2))
    return (SOFT * surrogate).sum() / SOFT.sum()
