"""Conventions of preference pairs, likelihoods and value losses."""

import numpy as np

from tests.losses.library_formulas import LENGTHS, log_sigmoid, same, token_mean
from tests.losses.worked import MASK, NEW

# Preference pairs: sums of log-probs of chosen and rejected, and their lengths.

PW, PL, RW, RL, W, L = -10.0, -12.0, -11.0, -11.5, 5, 6
MARGIN = (PW - RW) - (PL - RL)


@same("dpo-paper", "dpo.loss")
def _() -> float:
    return -log_sigmoid(0.1 * MARGIN)


@same("dpo-gradient")
def _() -> float:
    return -0.1 / (1 + np.exp(0.1 * MARGIN))


@same("cdpo", "dpo.cdpo")
def _() -> float:
    return -0.9 * log_sigmoid(0.1 * MARGIN) - 0.1 * log_sigmoid(-0.1 * MARGIN)


@same("dpo-robust", "dpo.robust")
def _() -> float:
    right, wrong = log_sigmoid(0.1 * MARGIN), log_sigmoid(-0.1 * MARGIN)
    return (-0.9 * right + 0.1 * wrong) / 0.8


@same("ipo-openrlhf", "dpo.ipo_sum")
def _() -> float:
    return (MARGIN - 1 / 0.2) ** 2


@same("ipo-trl", "dpo.ipo_avg")
def _() -> float:
    return ((PW - RW) / W - (PL - RL) / L - 1 / 0.2) ** 2


@same("hinge", "dpo.hinge")
def _() -> float:
    return max(0, 1 - 0.1 * MARGIN)


@same("dpo-length-normalised", "dpo.sigmoid_norm")
def _() -> float:
    return -log_sigmoid(0.1 * ((PW - RW) / W - (PL - RL) / L))


@same("simpo-paper", "dpo.simpo")
def _() -> float:
    return -log_sigmoid(2.5 * PW / W - 2.5 * PL / L - 1.375)


@same("orpo-paper", "dpo.orpo")
def _() -> float:
    a_w, a_l = PW / W, -15.0 / L
    odds = (a_w - a_l) - (np.log1p(-np.exp(a_w)) - np.log1p(-np.exp(a_l)))
    return -a_w - 0.1 * log_sigmoid(odds)


def nca(beta: float) -> float:
    good, bad = beta * (PW - RW), beta * (PL - RL)
    return -log_sigmoid(good) - 0.5 * log_sigmoid(-good) - 0.5 * log_sigmoid(-bad)


@same("nca-paper")
def _() -> float:
    return nca(0.01)


@same("nca-light-r1")
def _() -> float:
    return nca(0.3)


@same("irpo-paper", "dpo.irpo")
def _() -> float:
    return -log_sigmoid(0.1 * MARGIN) - PW / W


# Likelihoods.


@same("sft-token-mean", "sft.nll")
def _() -> float:
    return -(NEW * MASK).sum() / MASK.sum()


@same("sft-sequence-mean", "sft.seq")
def _() -> float:
    return np.mean(-(NEW * MASK).sum(1) / LENGTHS)


@same("dft", "dft.loss")
def _() -> float:
    return token_mean(-np.exp(NEW) * NEW)


@same("prime-prm", "prime.ce")
def _() -> float:
    sums = 0.05 * np.array([0.2 - 0.1 + 0.5, -0.2 + 0.3 - 0.2])
    return -(log_sigmoid(sums[0]) + log_sigmoid(-sums[1])) / 2


# Values.

V_OLD, V_NEW = np.array([0.5, 0.2, 0.7]), np.array([1.2, 0.9, 0.1])


def squares(clip: float) -> tuple[np.ndarray, np.ndarray]:
    moved = np.clip(V_NEW, V_OLD - clip, V_OLD + clip)
    return (V_NEW - 1) ** 2, (moved - 1) ** 2


@same("value-verl", "vl.loss")
def _() -> float:
    return 0.5 * np.maximum(*squares(0.5)).mean()


@same("value-orz")
def _() -> float:
    return 0.5 * np.maximum(*squares(0.2)).mean()


@same("value-plain")
def _() -> float:
    return squares(0.5)[0].mean()


@same("value-gradient")
def _() -> np.ndarray:
    plain, clipped = squares(0.5)
    return np.where(clipped > plain, 0, V_NEW - 1) / 3
