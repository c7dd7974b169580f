"""Small arrays, and the terms that recipes compose their losses of, in NumPy."""

import numpy as np

from jaxrl_reason.losses import batch_counts
from jaxrl_reason.rl.controller import Controller
from jaxrl_reason.rl.method import Experience, Method

# Losses and advantages on arrays: the composition that each recipe claims.

B, T = 8, 6
RNG = np.random.default_rng(3)
LENGTHS = np.array([6, 3, 1, 5, 6, 2, 4, 6])
MASK = np.arange(T) < LENGTHS[:, None]
LOGPROBS, OLD, REF, SAMPLER = -RNG.uniform(0.1, 2.0, (4, B, T)).astype(np.float32)
GROUPS = np.repeat(np.arange(2), 4)
REWARDS = np.array([1, 0, 0, 1, 0, 1, 1, 1], np.float32)
VALUES = RNG.normal(size=(B, T)).astype(np.float32)
ADVANTAGES = RNG.normal(size=B).astype(np.float32)
REWARD_MODEL = -RNG.uniform(0.1, 2.0, (B, T)).astype(np.float32)
COMPONENT = np.array([1, 1, 0, 1, 0, 0, 1, 0], np.float32)
SQUARES = np.random.default_rng(4).uniform(0.1, 1.0, (B, T)).astype(np.float32)
STATES = np.array(  # rows 0 to 3 are one group; -1 is no step
    [[0, 1, 2], [0, 2, -1], [0, -1, -1], [1, 0, 2]] * 2, np.int32
)
STEPS = np.minimum(np.arange(T) // 2, (STATES >= 0).sum(1)[:, None] - 1)
_SO_FAR = MASK[:, None, :] & (STEPS[:, None, :] <= np.arange(3)[:, None])  # [B, S, T]
STEP_ENDS = _SO_FAR.sum(-1) - 1
STEP_REWARDS = np.where(STATES == 2, 0.5, 0.0).astype(np.float32)
GREEDY = np.repeat(np.array([1, 0], np.float32), 4)
TRUNCATED = np.array([1, 0, 0, 0, 1, 0, 0, 0], bool)
EXPERIENCE = Experience(
    rewards=REWARDS,
    lengths=LENGTHS,
    mask=MASK,
    group_ids=GROUPS,
    old_logprobs=OLD,
    num_groups=2,
    truncated=TRUNCATED,
    inputs={
        "ref_logprobs": REF,
        "values": VALUES,
        "reward_components": np.stack([REWARDS, COMPONENT], axis=1),
        "greedy_rewards": GREEDY,
        "squared_probs": SQUARES,
        "reward_logprobs": REWARD_MODEL,
        "state_ids": STATES,
        "step_ids": STEPS,
        "step_ends": STEP_ENDS,
        "step_rewards": STEP_REWARDS,
    },
)
COUNTS = batch_counts(MASK, GROUPS, num_groups=2)
SELECTED = RNG.random((B, T)) < 0.3
NAMED = {
    "entropy": RNG.uniform(0.0, 2.0, (B, T)).astype(np.float32),
    "ref_logprobs": REF,
    "correct": REWARDS > 0,
    "selected": SELECTED,
    "weights": RNG.uniform(0.5, 2.0, (B, T)).astype(np.float32),
}


def loss_of(method: Method) -> float:
    extra = {name: NAMED[name] for name in method.all_loss_inputs}
    for component in method.components:
        if isinstance(component, Controller):
            extra |= component.coefficients(component.start)
    if "correct" in extra:
        good = MASK & NAMED["correct"][:, None]
        extra["positive_counts"] = batch_counts(good, GROUPS, num_groups=2)
    return float(method.loss(LOGPROBS, OLD, ADVANTAGES, MASK, COUNTS, **extra)[0])


def ratio() -> np.ndarray:
    return np.exp(LOGPROBS - OLD)


def clipped(low: float, high: float, dual: float | None = None) -> np.ndarray:
    a, r = ADVANTAGES[:, None], ratio()
    out = np.maximum(-a * r, -a * np.clip(r, 1 - low, 1 + high))
    if dual is not None:
        out = np.where(a < 0, np.minimum(out, -a * dual), out)
    return out


def tokens(x: np.ndarray) -> float:
    return float(x[MASK].mean())


def rows(x: np.ndarray) -> float:
    return float(np.mean((x * MASK).sum(1) / LENGTHS))


def k3() -> np.ndarray:
    return np.exp(REF - LOGPROBS) - (REF - LOGPROBS) - 1


def positive() -> float:
    good = MASK & NAMED["correct"][:, None]
    return float(-LOGPROBS[good].mean())
