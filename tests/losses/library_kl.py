"""Conventions of the KL, the entropy and the rollout correction."""

import numpy as np

from tests.losses.library_formulas import (
    LENGTHS,
    RATIO,
    A,
    k3,
    same,
    sequence_mean,
    token_mean,
)
from tests.losses.worked import MASK, NEW, OLD, REF, SAMPLER

D = NEW - REF
TOKENS = MASK.sum()


def ppo(ratio: np.ndarray) -> np.ndarray:
    return np.maximum(-A * ratio, -A * np.clip(ratio, 0.8, 1.2))


# KL.


@same("k1-value", "kl.k1m")
def _() -> float:
    return token_mean(D)


@same("k1-gradient-tunix")
def _() -> np.ndarray:
    return MASK / TOKENS


@same("k2-openrlhf", "kl.k2m")
def _() -> float:
    return token_mean(D**2 / 2)


@same("k3-paper", "kl.k3m")
def _() -> float:
    return token_mean(k3(NEW, REF))


@same("k3-gradient")
def _() -> np.ndarray:
    return (1 - np.exp(-D)) * MASK / TOKENS


@same("k1-plus-verl", "kl.k1m")
def _() -> float:
    return token_mean(D)


@same("k1-plus-verl-gradient")
def _() -> np.ndarray:
    return D * MASK / TOKENS


@same("k3-plus-verl", "kl.k3m")
def _() -> float:
    return token_mean(k3(NEW, REF))


@same("k3-plus-verl-gradient")
def _() -> np.ndarray:
    # k2 - sg(k2) + sg(k3): the slope of d^2 / 2.
    return D * MASK / TOKENS


@same("k3-verl-bound")
def _() -> float:
    minus_d = np.clip(15.0, -20, 20)
    return np.clip(np.exp(minus_d) - minus_d - 1, -10, 10)


@same("k3-unbiased-deepseek")
def _() -> float:
    return token_mean(RATIO * k3(NEW, REF))


@same("k3-unbiased-gradient")
def _() -> np.ndarray:
    return RATIO * (k3(NEW, REF) + 1 - np.exp(-D)) * MASK / TOKENS


@same("grpo-loss-deepseekmath", "grpo.loss")
def _() -> float:
    return sequence_mean(ppo(RATIO) + 0.04 * k3(NEW, REF))


@same("logic-rl-kl")
def _() -> float:
    return token_mean(ppo(RATIO) + 0.001 * k3(NEW, REF))


@same("reinforce-pp-baseline-kl")
def _() -> float:
    return token_mean(ppo(RATIO) + 0.01 * D**2 / 2)


@same("kl-control-measured")
def _() -> float:
    return np.mean(((OLD - REF) * MASK).sum(1) / LENGTHS)


@same("kl-control-verl", "akl.up")
def _() -> float:
    return 0.2 * (1 + np.clip(9 / 6 - 1, -0.2, 0.2) * 256 / 10000)


@same("entropy-control-skywork")
def _() -> list[float]:
    # The measured entropy equals the target: not below it.
    return [0.003 - 1e-4, 0.0]


@same("entropy-control-trl")
def _() -> list[float]:
    return [0.01 + 0.005, 0.01 + 0.005]


# Entropy.

LOGITS = np.array([[1, 2, 0.5], [0, -1, 3]])


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@same("temperature-verl", "tok.lp_T06")
def _() -> np.ndarray:
    return log_softmax(LOGITS / 0.6)[[0, 1], [1, 2]]


@same("entropy-full", "tok.ent")
def _() -> np.ndarray:
    log_p = log_softmax(LOGITS)
    return -(np.exp(log_p) * log_p).sum(-1)


@same("entropy-full-gradient", "ent.grad")
def _() -> np.ndarray:
    log_p = log_softmax(LOGITS)
    entropy = -(np.exp(log_p) * log_p).sum(-1, keepdims=True)
    return -np.exp(log_p) * (log_p + entropy)


@same("entropy-monte-carlo", "ent_mc")
def _() -> float:
    return -token_mean(OLD)


@same("entropy-bonus")
def _() -> float:
    full = np.arange(1, 17).reshape(4, 4) / 10
    return token_mean(ppo(RATIO)) - 0.001 * token_mean(full)


# Rollout correction.

U = np.exp(np.clip(OLD - SAMPLER, -20, 20)) * MASK
PRODUCT = np.exp(((OLD - SAMPLER) * MASK).sum(1))
MEAN_U = np.exp(((OLD - SAMPLER) * MASK).sum(1) / LENGTHS)


@same("tis-token", "tis.loss")
def _() -> float:
    return token_mean(np.minimum(U, 2.0) * ppo(RATIO))


@same("tis-sequence", "tis.seq_tr")
def _() -> np.ndarray:
    return np.minimum(PRODUCT, 2.0)


@same("tis-sequence-loss")
def _() -> float:
    return token_mean(np.minimum(PRODUCT, 2.0)[:, None] * ppo(RATIO))


@same("tis-openrlhf")
def _() -> float:
    return token_mean(np.clip(U, 0.5, 2.0) * ppo(RATIO))


@same("tis-batch-normalised")
def _() -> float:
    weights = np.minimum(U, 2.0)
    return token_mean(weights / token_mean(weights) * ppo(RATIO))


@same("icepop", "icepop.loss")
def _() -> float:
    return token_mean(np.where((U >= 0.5) & (U <= 2), U, 0) * ppo(RATIO))


@same("icepop-prorl")
def _() -> np.ndarray:
    return np.where((U >= 0.5) & (U <= 5), U, 0)


@same("mis-sequence", "mis.seq")
def _() -> np.ndarray:
    return np.where((PRODUCT >= 0.5) & (PRODUCT <= 2), PRODUCT, 0)


@same("seq-mask-tis-openrlhf")
def _() -> np.ndarray:
    kept = (MEAN_U >= 0.5) & (MEAN_U <= 2)
    return U * kept[:, None]


@same("rejection-geometric")
def _() -> np.ndarray:
    return (MEAN_U >= 0.999) & (MEAN_U <= 1.001)


@same("rejection-verl-k1-bounds")
def _() -> np.ndarray:
    # "0.5_5.0" bounds -log u, that is mu / old.
    return (1 / PRODUCT >= 0.5) & (1 / PRODUCT <= 5.0)


@same("rejection-k3")
def _() -> np.ndarray:
    return (k3(SAMPLER, OLD) * MASK).sum(1) / LENGTHS <= 1e-2


@same("rejection-verl-denominator")
def _() -> float:
    kept = ((MEAN_U >= 0.999) & (MEAN_U <= 1.001))[:, None] * MASK
    return token_mean(ppo(RATIO), kept)


@same("bypass", "bypass.loss")
def _() -> float:
    return token_mean(ppo(np.exp(NEW - SAMPLER)))


@same("off-policy-mask-deepseek", "opsm.keep")
def _() -> np.ndarray:
    away = ((OLD - NEW) * MASK).sum(1) / LENGTHS
    return ~((A[:, 0] < 0) & (away > 0.2))


@same("mismatch-k1", "roll.kl")
def _() -> float:
    return token_mean(SAMPLER - OLD)


@same("mismatch-k3", "roll.k3")
def _() -> float:
    return token_mean(k3(SAMPLER, OLD))


@same("ess-clipped", "tis.ess")
def _() -> float:
    weights = np.clip(U, 0.5, 2)
    return 1 / token_mean((weights / token_mean(weights)) ** 2)
