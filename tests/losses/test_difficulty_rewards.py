"""MiMo's reward for code: strict, soft, and tests that are padding."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    difficulty_levels,
    difficulty_reward,
)
from tests.losses import reference_rollout as ref
from tests.losses.worked import EXAMPLES, close

SCORES = (0.2, 0.3, 0.5)
PASSED = np.array([1, 1, 1, 0, 1, 1, 1, 1, 1])
LEVELS = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
reward = jax.jit(difficulty_reward, static_argnames=("scores", "soft"))


def test_worked_rewards() -> None:
    def check(strict: Callable) -> None:
        close(strict(PASSED, LEVELS), EXAMPLES["mimo.strict"])

    check(partial(reward, scores=SCORES))
    close(reward(PASSED, LEVELS, scores=SCORES, soft=True), EXAMPLES["mimo.soft"])

    def level_by_level(passed: np.ndarray, levels: np.ndarray) -> float:
        return sum(s * passed[levels == level].all() for level, s in enumerate(SCORES))

    with pytest.raises(AssertionError):
        check(level_by_level)  # forgets that easier levels must pass as well


def test_it_is_the_loop_over_levels() -> None:
    rng = np.random.default_rng(0)
    passed = rng.random((40, 7)) < 0.8
    levels = rng.integers(-1, 4, (40, 7))  # -1 and 3 are no levels
    for soft in (False, True):
        expected = [
            ref.difficulty(p, lv, SCORES, soft)
            for p, lv in zip(passed, levels, strict=True)
        ]
        close(reward(passed, levels, scores=SCORES, soft=soft), expected)
    rows = jax.vmap(partial(reward, scores=SCORES))(passed, levels)
    close(rows, reward(passed, levels, scores=SCORES))


@pytest.mark.parametrize("soft", [False, True])
def test_ends_padding_and_missing_levels(soft: bool) -> None:
    score = partial(reward, scores=SCORES, soft=soft)
    close(score(np.ones(9), LEVELS), 1.0)
    close(score(np.zeros(9), LEVELS), 0.0)
    padded = np.pad(LEVELS, (0, 3), constant_values=-1)
    close(score(np.pad(PASSED, (0, 3)), padded), score(PASSED, LEVELS))
    close(score(np.ones(2), np.array([0, 2])), 0.7)  # nothing at level 1
    close(score(np.ones(2), np.full(2, -1)), 0.0)


def test_levels_by_pass_rate() -> None:
    rates = jnp.array([[1.0, 0.75, 0.7], [0.25, 0.2, 0.0]])
    found = difficulty_levels(rates, edges=(0.75, 0.25))
    assert found.tolist() == [[0, 0, 1], [1, 2, 2]]
    assert difficulty_levels(rates, edges=()).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: difficulty_reward(PASSED, LEVELS, scores=(0.5, 0.6)),
            r"scores must sum to 1, got \(0.5, 0.6\)",
        ),
        (
            lambda: difficulty_reward(PASSED, LEVELS, scores=(1.5, -0.5)),
            "scores must be finite and >= 0, got -0.5",
        ),
        (
            lambda: difficulty_reward(PASSED, LEVELS[:3], scores=SCORES),
            "passed and levels must have 1 axes and one shape",
        ),
        (
            lambda: difficulty_reward(PASSED, LEVELS * 1.0, scores=SCORES),
            "levels must be an integer array",
        ),
        (
            lambda: difficulty_reward(True, 0, scores=SCORES),
            "passed must have an axis of tests",
        ),
        (
            lambda: difficulty_levels(np.ones(2), edges=(0.2, 0.8)),
            r"edges must decrease, got \(0.2, 0.8\)",
        ),
        (
            lambda: difficulty_levels(np.ones(2), edges=(80.0,)),
            r"edges must be in \[0, 1\], got 80.0",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
