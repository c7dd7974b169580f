"""Conventions of denominators, clips and ratios."""

import numpy as np

from tests.losses.library_formulas import (
    LENGTHS,
    RATIO,
    A,
    log_sigmoid,
    other,
    same,
    sequence_mean,
    token_mean,
)
from tests.losses.worked import ADVANTAGES, MASK, NEW, OLD, VALUES

X = np.where(MASK > 0, VALUES, 0)
OFF = MASK * np.array([[0], [1], [1], [1]])  # row 0 was truncated and is masked


# Denominators.


@same("token-mean", "agg.token-mean")
def _() -> float:
    return X.sum() / MASK.sum()


@same("sequence-mean", "agg.seq-mean-token-mean")
def _() -> float:
    return np.mean(X.sum(1) / LENGTHS)


@same("sequence-sum", "agg.seq-mean-token-sum")
def _() -> float:
    return np.mean(X.sum(1))


@same("fixed-length", "agg.fixed")
def _() -> float:
    return X.sum() / (4 * 8)


@same("sum-norm-verl", "agg.verl_norm")
def _() -> float:
    return X.sum() / 8


@same("sum-norm-verl-width")
def _() -> float:
    return X.sum() / X.shape[1]


@same("question-mean-dapo")
def _() -> float:
    return np.mean([X[:2].sum() / MASK[:2].sum(), X[2:].sum() / MASK[2:].sum()])


@same("devices-verl")
def _() -> list[float]:
    # The framework averages over 2 ranks: each local sum over the global count times 2.
    return [part.sum() / MASK.sum() * 2 for part in (X[:2], X[2:])]


@other("micro-batches-verl", "ga.naive")
def _() -> tuple[float, float]:
    means = [X[:1].sum() / MASK[:1].sum(), X[1:].sum() / MASK[1:].sum()]
    return np.mean(means), token_mean(X)


@other("devices-trl", "agg.dp_naive")
def _() -> tuple[float, float]:
    means = [X[:2].sum() / MASK[:2].sum(), X[2:].sum() / MASK[2:].sum()]
    return np.mean(means), token_mean(X)


@same("masked-rows-token-mean", "of.tok")
def _() -> float:
    return token_mean(X, OFF)


@same("masked-rows-verl", "of.seq")
def _() -> float:
    return sequence_mean(X, OFF)


@same("masked-rows-trl")
def _() -> float:
    return (0 + 11 / 2 + 24 / 3 + 10 / 1) / 4


@same("masked-rows-fixed-unmasked", "of.fixed")
def _() -> float:
    return (X * OFF).sum() / 8 / 3


@same("masked-rows-fixed-all", "of.fixed_B4")
def _() -> float:
    return (X * OFF).sum() / 8 / 4


@same("overlong-srpo")
def _() -> float:
    a = A * np.array([[0], [1], [1], [1]])
    return token_mean(-a * NEW)


@same("kept-groups-skywork")
def _() -> float:
    return X[2:].sum() / MASK[2:].sum()


# Policy losses.


def ppo(low: float, high: float, dual: float | None = None) -> np.ndarray:
    loss = np.maximum(-A * RATIO, -A * np.clip(RATIO, 1 - low, 1 + high))
    return loss if dual is None else np.where(A < 0, np.minimum(loss, -A * dual), loss)


@same("ppo-paper", "ppo.loss")
def _() -> float:
    return token_mean(ppo(0.2, 0.2))


@same("ppo-verl", "ppo.loss_dual")
def _() -> float:
    return token_mean(ppo(0.2, 0.2, 3.0))


@same("dapo-paper", "dapo.loss_nodual")
def _() -> float:
    return token_mean(ppo(0.2, 0.28))


@same("dapo-verl", "dapo.loss")
def _() -> float:
    return token_mean(ppo(0.2, 0.28, 10.0))


@same("delta-trl", "delta.loss")
def _() -> float:
    bounded = np.minimum(RATIO, 4.0) * A
    return token_mean(-np.minimum(bounded, np.clip(RATIO, 0.8, 1.2) * A))


@same("r1-clip")
def _() -> float:
    return sequence_mean(ppo(10, 10))


@same("dr-grpo-loss", "drgrpo.loss")
def _() -> float:
    return ppo(0.2, 0.2).sum() / 8 / 4


@same("ratio-bound-verl")
def _() -> float:
    return np.exp(np.clip(25.0, -20, 20))


@same("ppo-kl-verl", "ppo.kl")
def _() -> float:
    return token_mean(OLD - NEW)


@same("reinforce", "gpg.loss")
def _() -> float:
    return token_mean(-A * NEW)


@same("vapo-loss", "vapo.loss")
def _() -> float:
    correct = np.array([[1], [0], [1], [0]])
    nll = -(NEW * MASK * correct).sum() / (MASK * correct).sum()
    return token_mean(ppo(0.2, 0.28)) + 0.1 * nll


S = np.exp(((NEW - OLD) * MASK).sum(1) / LENGTHS)  # the sequence ratio of GSPO


def gspo() -> np.ndarray:
    clipped = np.clip(S, 1 - 3e-4, 1 + 4e-4)
    return np.maximum(-ADVANTAGES * S, -ADVANTAGES * clipped)


@same("gspo-paper", "gspo.loss")
def _() -> float:
    return gspo().mean()


@same("gspo-token-gradient", "gspo.grad")
def _() -> np.ndarray:
    free = np.array([0, 0, 0, 1])  # the other three are clipped
    return (-ADVANTAGES * S * free / LENGTHS / 4)[:, None] * MASK


@same("gspo-token-mean")
def _() -> float:
    return (gspo() * LENGTHS).sum() / LENGTHS.sum()


@other("gspo-verl-bound")
def _() -> tuple[float, float]:
    return np.exp(min(12.0, 10.0)), np.exp(12.0)


def cispo(low: float, high: float) -> float:
    return token_mean(-np.clip(RATIO, low, high) * A * NEW)


@same("cispo-verl", "cispo.loss")
def _() -> float:
    return cispo(1 - 10, 1 + 0.28)


@same("cispo-verl-script")
def _() -> float:
    return cispo(1 - 10, 1 + 0.2)


@same("cispo-trl", "cispo.loss_cap5")
def _() -> float:
    return cispo(-np.inf, 5.0)


@same("cispo-gradient")
def _() -> np.ndarray:
    return -np.clip(RATIO, -9, 1.28) * A * MASK / MASK.sum()


def gmpo_ratio() -> np.ndarray:
    sign, d = np.sign(A), NEW - OLD
    d = sign * np.minimum(sign * d, sign * np.clip(d, -0.4, 0.4))
    return np.exp((d * MASK).sum(1) / LENGTHS)


@same("gmpo-paper", "gmpo.loss")
def _() -> float:
    return np.mean(-ADVANTAGES * gmpo_ratio())


@other("gmpo-verl-rows")
def _() -> tuple[float, float]:
    # What rows 1 to 3 add as a micro-batch: a mean of their own, not their part of it.
    rows = (-ADVANTAGES * gmpo_ratio())[1:]
    return rows.mean(), rows.sum() / 4


@same("sapo-paper", "sapo.loss")
def _() -> float:
    tau = np.where(A > 0, 1.0, 1.05)
    return sequence_mean(-A * 4 / tau * np.exp(log_sigmoid(tau * (RATIO - 1))))


COV_A = np.array([2, -1, 0.5, -1.5, 1, -1])
COV_NEW = np.array([-0.1, -2, -0.5, -3, -0.2, -0.6])
COV_OLD = np.array([-0.3, -1.8, -0.5, -2.5, -0.4, -0.7])


def kl_cov(coef: float) -> float:
    cov = (COV_A - COV_A.mean()) * (COV_NEW - COV_NEW.mean())
    top = np.argsort(cov)[-2:]  # int(0.34 * 6)
    loss = -COV_A * np.exp(COV_NEW - COV_OLD)
    loss[top] += coef * np.abs(COV_NEW - COV_OLD)[top]
    return loss.mean()


@same("kl-cov-paper", "cov.klloss")
def _() -> float:
    return kl_cov(1.0)


@same("kl-cov-verl-yaml")
def _() -> float:
    return kl_cov(0.1)


@same("clip-cov-paper", "cov.cliploss_first")
def _() -> float:
    ratio = np.exp(COV_NEW - COV_OLD)
    loss = np.maximum(-COV_A * ratio, -COV_A * np.clip(ratio, 0, 2))
    loss[0] = 0.0  # the one drawn of the two in the band (1, 5)
    return loss.mean()
