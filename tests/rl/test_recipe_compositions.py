"""Losses and advantages on arrays: the composition that each recipe claims."""

import numpy as np
import pytest

from jaxrl_reason.rl.method import Experience
from tests.rl.recipe_arrays import (
    ADVANTAGES,
    COMPONENT,
    EXPERIENCE,
    GREEDY,
    LENGTHS,
    LOGPROBS,
    MASK,
    OLD,
    REF,
    REWARD_MODEL,
    REWARDS,
    SELECTED,
    SQUARES,
    STATES,
    STEP_ENDS,
    STEP_REWARDS,
    STEPS,
    TRUNCATED,
    VALUES,
    B,
    T,
    clipped,
    k3,
    loss_of,
    positive,
    ratio,
    rows,
    tokens,
)
from tests.rl.recipe_helpers import LIMIT, built

PLAIN = -ADVANTAGES[:, None] * LOGPROBS
CLAIMS = {
    "deepseekmath": rows(clipped(0.2, 0.2) + 0.04 * k3()),
    "r1_zero": rows(clipped(10.0, 10.0) + 0.001 * k3()),
    "dr_grpo": float((clipped(0.2, 0.2) * MASK).sum()) / (B * LIMIT),
    "dapo": tokens(clipped(0.2, 0.28)),
    "dapo_0_naive_grpo": rows(clipped(0.2, 0.2)),
    "dapo_3_soft_overlong": rows(clipped(0.2, 0.28)),
    "dapo_4_token_level_loss": tokens(clipped(0.2, 0.28)),
    "srpo": tokens(clipped(0.2, 0.2)),
    "skywork_or1": tokens(clipped(0.2, 0.2)),
    "light_r1": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "deepscaler": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "mimo": tokens(clipped(0.2, 0.28)),
    "lite_ppo": tokens(clipped(0.2, 0.2)),
    "intellect_2": rows(clipped(0.2, 0.2, 4.0) + 0.001 * k3()),
    "ppo": tokens(clipped(0.2, 0.2)),
    "open_reasoner_zero": tokens(clipped(0.2, 0.2)),
    "vc_ppo": tokens(clipped(0.2, 0.2)),
    "vapo": tokens(clipped(0.2, 0.28)) + 0.1 * positive(),
    "reinforce_pp": tokens(clipped(0.2, 0.2)),
    "reinforce_pp_baseline": tokens(
        clipped(0.2, 0.2) + 0.001 * 0.5 * (LOGPROBS - REF) ** 2
    ),
    "logic_rl": tokens(clipped(0.2, 0.2) + 0.001 * k3()),
    "rloo": float((PLAIN * MASK).sum()) / B,
    "opo": float((PLAIN * MASK).sum()) / B,
    "gpg": tokens(PLAIN),
    "remax": float((PLAIN * MASK).sum()) / B,
    "prime": tokens(clipped(0.2, 0.2)),
    "gdpo": rows(clipped(0.2, 0.2)),
    "otb": tokens(clipped(0.2, 0.2)),
    "turn_ppo": tokens(clipped(0.2, 0.2)),
    "gigpo": rows(clipped(0.2, 0.2) + 0.01 * k3()),
    "pcgrad": rows(clipped(0.2, 0.2)),
    "mgda": rows(clipped(0.2, 0.2)),
    "cispo": tokens(np.minimum(ratio(), 5.0) * PLAIN),
    "kl_cov": tokens(
        -ADVANTAGES[:, None] * ratio() + SELECTED * np.abs(LOGPROBS - OLD)
    ),
    "clip_cov": tokens(clipped(1.0, 1.0) * ~SELECTED),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_loss_is_the_composition_that_the_recipe_claims(name: str) -> None:
    assert loss_of(built(name)) == pytest.approx(CLAIMS[name], rel=2e-6)


def whitened(x: np.ndarray) -> np.ndarray:
    return np.where(MASK, (x - x[MASK].mean()) / x[MASK].std(ddof=1), 0.0)


def group_mean(x: np.ndarray) -> np.ndarray:
    return np.repeat(x.reshape(2, 4).mean(1), 4)


def group_std() -> np.ndarray:
    return np.repeat(REWARDS.reshape(2, 4).std(1, ddof=1), 4)


def per_token(x: np.ndarray) -> np.ndarray:
    return np.where(MASK, x[:, None], 0.0)


def lambda_returns(lam: np.ndarray) -> np.ndarray:
    """GAE by its definition, a row after the other."""
    out = np.zeros((B, T))
    for i, n in enumerate(LENGTHS):
        later = 0.0
        for t in reversed(range(n)):
            after = VALUES[i, t + 1] if t + 1 < n else 0.0
            reward = REWARDS[i] if t + 1 == n else 0.0
            later = reward + after - VALUES[i, t] + lam[i] * later
            out[i, t] = later
    return out


def least_variance() -> np.ndarray:
    """OTB by its definition: per group and token a weighted mean of the returns."""
    energy = np.cumsum((1 - 2 * np.exp(OLD) + SQUARES).clip(0) * MASK, axis=1)
    out = np.zeros((B, T))
    for first in (0, 4):
        for t in range(T):
            rows_left = [i for i in range(first, first + 4) if MASK[i, t]]
            w, g = energy[rows_left, t], REWARDS[rows_left]
            out[rows_left, t] = g - (w * g).sum() / w.sum() if rows_left else 0.0
    return out


def steps_among_equals() -> np.ndarray:
    """GiGPO by its definition: the episode's advantage plus that of each step."""
    episode, of_steps = REWARDS - group_mean(REWARDS), np.zeros(STATES.shape)
    gains = np.zeros(STATES.shape)
    for i, states in enumerate(STATES):
        n, later = (states >= 0).sum(), 0.0
        for k in reversed(range(n)):
            later = STEP_REWARDS[i, k] + REWARDS[i] * (k == n - 1) + 0.95 * later
            gains[i, k] = later
    for first in (0, 4):
        for state in (0, 1, 2):
            met = np.zeros(STATES.shape, bool)
            met[first : first + 4] = STATES[first : first + 4] == state
            of_steps[met] = gains[met] - gains[met].mean()
    out = episode[:, None] + np.take_along_axis(of_steps, STEPS, axis=1)
    return np.where(MASK, out, 0.0)


def turn_level() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advantages, targets and first tokens of GAE over steps, by its definition."""
    out, targets, first = np.zeros((B, T)), np.zeros((B, T)), np.zeros((B, T), bool)
    for i, n in enumerate(LENGTHS):
        later, after, earned = 0.0, 0.0, np.zeros(n)
        earned[-1] = REWARDS[i]
        for k in np.flatnonzero(STATES[i] >= 0):
            earned[STEP_ENDS[i, k]] += STEP_REWARDS[i, k]
        for k in sorted(set(STEPS[i, :n]), reverse=True):
            at = np.flatnonzero(STEPS[i, :n] == k)
            value = VALUES[i, at[0]]
            later = earned[at].sum() + 0.99 * after - value + 0.99 * 0.9 * later
            after, out[i, at], first[i, at[0]] = value, later, True
            targets[i, at[0]] = later + value
    return out, targets, first


CENTRED = REWARDS - group_mean(REWARDS)
KL_ROWS = ((OLD - REF) * MASK).sum(1)
MINUS_KL = REWARDS - 0.001 * KL_ROWS
TO_GO = np.cumsum(((OLD - REF) * MASK)[:, ::-1], axis=1)[:, ::-1]
BASE = np.repeat(
    (LENGTHS * REWARDS).reshape(2, 4).sum(1) / LENGTHS.reshape(2, 4).sum(1), 4
)
PROCESS = per_token(np.ones(B)) * 0.05 * (REWARD_MODEL - REF)
PROCESS_MEANS = PROCESS.sum(1) / LENGTHS
OTHERS = (group_mean(PROCESS_MEANS) * 4 - PROCESS_MEANS) / 3
PROCESS_TO_GO = (
    per_token(np.ones(B))
    * np.cumsum(((PROCESS - OTHERS[:, None]) * MASK)[:, ::-1], axis=1)[:, ::-1]
)


def standardised(x: np.ndarray, eps: float = 1e-4) -> np.ndarray:
    std = np.repeat(x.reshape(2, 4).std(1, ddof=1), 4)
    return (x - group_mean(x)) / (std + eps)


APART = np.stack(
    [per_token(standardised(x, 1e-6)) for x in (REWARDS, COMPONENT)], axis=-1
)
SUMMED = standardised(REWARDS) + standardised(COMPONENT)
GRPO = CENTRED / (group_std() + 1e-6)
ESTIMATES = {
    "r1_zero": GRPO,
    "srpo": np.where(TRUNCATED, 0.0, GRPO),
    "dr_grpo": CENTRED,
    "lite_ppo": CENTRED / (REWARDS.std(ddof=1) + 1e-6),
    "vc_ppo": whitened(lambda_returns(np.full(B, 0.95))),
    "vapo": whitened(lambda_returns(np.zeros(B))),  # below 20 tokens lambda is 0
    "open_reasoner_zero": whitened(lambda_returns(np.ones(B))),
    "reinforce_pp": whitened(REWARDS[:, None] - 0.001 * TO_GO),
    "reinforce_pp_baseline": whitened(per_token(CENTRED)),
    "logic_rl": whitened(per_token(REWARDS)),
    "rloo": (MINUS_KL - group_mean(MINUS_KL)) * 4 / 3,
    "opo": REWARDS - BASE,
    "otb": least_variance(),
    "gigpo": steps_among_equals(),
    "gpg": CENTRED,  # both groups have signal
    "remax": REWARDS - GREEDY,
    "prime": PROCESS_TO_GO + per_token((REWARDS - group_mean(REWARDS)) * 4 / 3),
    "gdpo": SUMMED / (SUMMED.std(ddof=1) + 1e-4),
    "pcgrad": APART,
    "mgda": APART,
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_advantages_are_those_that_the_recipe_claims(name: str) -> None:
    estimate = built(name).advantages(EXPERIENCE)
    wanted = ESTIMATES[name]
    np.testing.assert_allclose(estimate.advantages, wanted, rtol=2e-5, atol=2e-6)
    if name in ("vc_ppo", "vapo", "open_reasoner_zero"):
        # Whatever lambda the policy has, the critic learns the plain return.
        np.testing.assert_allclose(
            estimate.returns, per_token(REWARDS), rtol=1e-5, atol=1e-6
        )


def test_turn_ppo_asks_for_values_where_steps_begin() -> None:
    estimate = built("turn_ppo").advantages(EXPERIENCE)
    raw, targets, first = turn_level()
    np.testing.assert_allclose(estimate.advantages, whitened(raw), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(estimate.returns, targets, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(estimate.value_mask, first)


def test_gdpo_says_what_it_lost() -> None:
    found = built("gdpo").advantages(EXPERIENCE)
    assert found.metrics["lost_group_ratio"] == 0
    parts = EXPERIENCE["reward_components"].copy()
    parts[1, 0] = np.nan
    inputs = {**EXPERIENCE.inputs, "reward_components": parts}
    found = built("gdpo").advantages(EXPERIENCE.replace(inputs=inputs))
    assert found.metrics["lost_group_ratio"] == 0.5
    assert (found.advantages[:4] == 0).all()
    assert (found.advantages[4:] != 0).any()


def test_lambda_of_vapo_grows_with_the_length() -> None:
    long = Experience(
        rewards=np.ones(1, np.float32),
        lengths=np.array([30]),
        mask=np.ones((1, 30), bool),
        group_ids=np.zeros(1, int),
        truncated=np.zeros(1, bool),
        old_logprobs=np.zeros((1, 30), np.float32),
        num_groups=1,
        inputs={"values": np.linspace(0.2, 0.8, 30, dtype=np.float32)[None]},
    )
    found, raw = built("vapo").advantages(long), np.zeros(30)
    later, values = 0.0, np.append(long["values"][0], 0.0)
    for t in reversed(range(30)):
        delta = (t == 29) + values[t + 1] - values[t]
        later = delta + later / 3  # 1 - 1 / (0.05 * 30)
        raw[t] = later
    assert raw[0] == pytest.approx(0.031034, rel=1e-4)  # section 16's example
    wanted = (raw - raw.mean()) / raw.std(ddof=1)
    np.testing.assert_allclose(found.advantages[0], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.returns, np.ones((1, 30)), rtol=1e-5)
