"""Conventions of advantages and of rewards by length."""

import numpy as np

from tests.losses.library_formulas import LENGTHS, other, same, token_mean
from tests.losses.worked import MASK, OLD, REF

ONE = np.array([1.0, 0, 0, 0])
SCORES = np.array([1.0, 0, 0.25, 0.75])
LONE = np.array([*SCORES, 0.5])  # and a group of one
OUTCOMES = np.array([1.0, 0, 1, 0.5])
PAIRS = np.array([0, 0, 1, 1])  # groups of two
TWELVE = np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1])  # three groups of four
CRITIC = np.array(
    [[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0, 0], [0.3] * 3 + [0], [0.5, 0, 0, 0]]
)


def standardised(r: np.ndarray, ddof: int, eps: float) -> np.ndarray:
    return (r - r.mean()) / (r.std(ddof=ddof) + eps)


@same("grpo-verl", "grpo.ddof1")
def _() -> np.ndarray:
    return standardised(ONE, 1, 1e-6)


@same("grpo-trl", "grpo.trl")
def _() -> np.ndarray:
    return standardised(ONE, 1, 1e-4)


@same("grpo-oat")
def _() -> np.ndarray:
    return standardised(ONE, 1, 1e-8)


@same("grpo-population", "grpo.ddof0")
def _() -> np.ndarray:
    return standardised(ONE, 0, 1e-6)


@same("grpo-orz", "drgrpo.adv")
def _() -> np.ndarray:
    # `if std := np.std(scores) > 0` makes std a bool.
    std = np.std(ONE) > 0
    return (ONE - ONE.mean()) / std


@same("dr-grpo-paper", "drgrpo.adv")
def _() -> np.ndarray:
    return ONE - ONE.mean()


@same("batch-std-papers")
def _() -> np.ndarray:
    groups = TWELVE.reshape(3, 4)
    centred = groups - groups.mean(1, keepdims=True)
    return centred.ravel() / TWELVE.std(ddof=1)


@same("rloo-paper", "rloo")
def _() -> np.ndarray:
    return np.array([r - (SCORES.sum() - r) / 3 for r in SCORES])


@other("rloo-verl-lone")
def _() -> tuple[np.ndarray, np.ndarray]:
    others = [r - (SCORES.sum() - r) / 3 for r in SCORES]
    return np.array([*others, LONE[4]]), np.array([*others, 0])


@other("grpo-verl-lone")
def _() -> tuple[np.ndarray, np.ndarray]:
    # Mean 0 and standard deviation 1 for a group of one.
    group = standardised(SCORES, 1, 1e-6)
    return np.array([*group, LONE[4]]), np.array([*group, 0])


@same("opo-verl", "opo.adv")
def _() -> np.ndarray:
    return SCORES - (LENGTHS * SCORES).sum() / LENGTHS.sum()


@same("remax-paper", "remax")
def _() -> np.ndarray:
    return SCORES - 0.25


def with_kl() -> np.ndarray:
    """Token rewards of the KL examples: k1 of the old policy, beta 0.1."""
    r = -0.1 * (OLD - REF) * MASK
    for i, n in enumerate(LENGTHS):
        r[i, n - 1] += OUTCOMES[i]
    return r


def returns(r: np.ndarray) -> np.ndarray:
    return np.cumsum(r[:, ::-1], axis=1)[:, ::-1]


@same("kl-in-reward-verl", "rpp.tok_r")
def _() -> np.ndarray:
    return with_kl()


@same("remax-verl")
def _() -> np.ndarray:
    return (returns(with_kl()) - 0.25) * MASK


def whitened(x: np.ndarray, ddof: int, eps: float) -> np.ndarray:
    inside = x[MASK > 0]
    return MASK * (x - inside.mean()) / np.sqrt(inside.var(ddof=ddof) + eps)


@same("reinforce-pp-verl", "rpp.adv")
def _() -> np.ndarray:
    return whitened(returns(with_kl()), 1, 1e-8)


@same("reinforce-pp-openrlhf", "rpp.adv_ddof0")
def _() -> np.ndarray:
    x = returns(with_kl())
    inside = x[MASK > 0]
    return MASK * (x - inside.mean()) / np.sqrt(max(inside.var(), 1e-8))


def minus_mean_of_pairs() -> np.ndarray:
    means = np.array([OUTCOMES[g == PAIRS].mean() for g in PAIRS])
    return (OUTCOMES - means)[:, None] * MASK


@same("reinforce-pp-baseline-verl", "rppb.adv")
def _() -> np.ndarray:
    return whitened(minus_mean_of_pairs(), 1, 1e-8)


@same("reinforce-pp-baseline-openrlhf")
def _() -> np.ndarray:
    return whitened(minus_mean_of_pairs(), 0, 0.0)


def gae(r: np.ndarray, lam: float) -> np.ndarray:
    """The recursion of arXiv 1506.02438 on rows without holes."""
    a = np.zeros_like(r)
    for i, n in enumerate(LENGTHS):
        for t in reversed(range(n)):
            last = t + 1 == n
            delta = r[i, t] + (0 if last else CRITIC[i, t + 1]) - CRITIC[i, t]
            a[i, t] = delta + (0 if last else lam * a[i, t + 1])
    return a


@same("gae-verl")
def _() -> np.ndarray:
    return whitened(gae(with_kl(), 1.0), 1, 1e-8)


@same("gae-classic", "full.adv")
def _() -> np.ndarray:
    return gae(with_kl(), 0.95)


@same("gae-classic-whitened", "full.white")
def _() -> np.ndarray:
    return whitened(gae(with_kl(), 0.95), 1, 1e-8)


@same("vc-ppo-targets", "rpp.ret")
def _() -> np.ndarray:
    return (gae(with_kl(), 1.0) + CRITIC) * MASK


@other("gae-orz-mean")
def _() -> tuple[float, float]:
    a = gae(with_kl(), 1.0)
    return a.mean(), token_mean(a)


@other("returns-verl-hole", "mask.reset")
def _() -> tuple[list[float], list[float]]:
    theirs, ours = [], []
    reset = carried = 0.0
    for reward, on in zip([1.0, 0, 0, 0], [1, 1, 0, 1], strict=True):  # from the right
        reset = (reward + reset) * on
        carried = reward + carried
        theirs.append(reset)
        ours.append(carried * on)
    return theirs[::-1], ours[::-1]


@same("vapo-lambda", "vapo.lam")
def _() -> np.ndarray:
    return np.clip(1 - 1 / (0.05 * np.array([10, 20, 25, 100, 1000, 10000])), 0, 1)


@same("gpg-paper", "gpg.adv")
def _() -> np.ndarray:
    groups = TWELVE.reshape(3, 4)
    flat = sum(4 for g in groups if len(set(g)) == 1)
    return (groups - groups.mean(1, keepdims=True)).ravel() * 12 / (12 - flat)


@same("gpg-code")
def _() -> np.ndarray:
    groups = TWELVE.reshape(3, 4)
    with_signal = sum(4 for g in groups if len(set(g)) > 1)
    return (groups - groups.mean(1, keepdims=True)).ravel() / (
        min(1, with_signal / 12) + 1e-5
    )


@other("gpg-verl")
def _() -> tuple[np.ndarray, np.ndarray]:
    groups = TWELVE.reshape(3, 4)
    centred = (groups - groups.mean(1, keepdims=True)).ravel()
    return centred * 12 / np.count_nonzero(TWELVE), centred * 12 / 4


@same("gdpo-trl", "gdpo.adv")
def _() -> np.ndarray:
    rewards = np.array([[1.0, 0], [1, 1], [0, 1], [0, 1]])
    total = sum(standardised(rewards[:, k], 1, 1e-4) for k in range(2))
    return standardised(total, 1, 1e-4)


@same("process-deepseekmath", "prm.adv")
def _() -> np.ndarray:
    steps = [(0, 1, 0.8), (0, 3, 0.2), (1, 0, 0.5), (1, 2, 1.0), (1, 3, 0.6)]
    z = standardised(np.array([score for _, _, score in steps]), 1, 0.0)
    a = np.zeros((2, 4))
    for (row, end, _), score in zip(steps, z, strict=True):
        a[row, : end + 1] += score
    return a


PRIME = 0.05 * np.array([[0.2, -0.1, 0.5], [-0.2, 0.3, -0.2]])  # beta (phi - reference)


def prime_outcomes() -> np.ndarray:
    return np.array([[1.0], [-1.0]])  # each minus the other of the two


@same("prime-paper", "prime.adv")
def _() -> np.ndarray:
    others = PRIME.mean(1)[::-1, None]
    return returns(PRIME - others) + prime_outcomes()


def prime_verl_tokens() -> np.ndarray:
    k = 2
    return PRIME * k / (k - 1) - PRIME.mean(1).sum() / (k - 1)


@same("prime-verl-tokens", "prime.verl_proc")
def _() -> np.ndarray:
    return prime_verl_tokens()


@same("prime-verl")
def _() -> np.ndarray:
    a = 5 * returns(prime_verl_tokens()) + 5 * prime_outcomes()
    return (a - a.mean()) / np.sqrt(a.var(ddof=1) + 1e-8)


@same("overlong-dapo")
def _() -> list[float]:
    return [
        max(-1.0, min(0.0, (16384 - n) / 4096)) for n in (16000, 17408, 20480, 22528)
    ]


@other("overlong-verl", "sop.verl_22528")
def _() -> tuple[float, float]:
    return min(-(22528 - 16384) / 4096, 0), -1.0


def half_cosine(n: float, short: float, long: float) -> float:
    return long + (short - long) / 2 * (1 + np.cos(np.pi * min(n / 1000, 1)))


@same("cosine-trl")
def _() -> list[float]:
    return [
        half_cosine(250, 1, 0.5),
        half_cosine(1500, 1, 0.5),
        half_cosine(250, -1, -0.5),
    ]


@same("cosine-paper")
def _() -> list[float]:
    return [half_cosine(250, 2, 1), -10.0, half_cosine(250, -10, 0)]


@same("kimi-paper", "kimi")
def _() -> list[float]:
    lam = [0.5 - (n - 100) / 200 for n in (100, 200, 150, 300)]
    return [lam[0], lam[1], min(0, lam[2]), min(0, lam[3])]
