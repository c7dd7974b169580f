"""Group mean, batch standard deviation: values, relations, settings."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_std_advantages,
    dr_grpo_advantages,
    grpo_advantages,
    whiten,
)
from tests.losses.worked import close

REWARDS = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0], np.float32)
IDS = np.repeat([0, 1, 2], [8, 2, 2])


compiled = jax.jit(partial(batch_std_advantages, num_groups=3), static_argnames="ddof")


def estimate(rewards: Any, ids: Any = IDS, **rest: Any) -> np.ndarray:
    return np.asarray(compiled(rewards, ids, **{"eps": 1e-6, **rest}))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.1])
def test_values(ddof: int, eps: float) -> None:
    means = np.array([REWARDS[np.equal(IDS, g)].mean() for g in IDS])
    expected = (REWARDS - means) / (REWARDS.std(ddof=ddof) + eps)
    close(estimate(REWARDS, ddof=ddof, eps=eps), expected)


def test_the_defaults() -> None:
    close(batch_std_advantages(REWARDS, IDS, num_groups=3), estimate(REWARDS))


def test_a_hard_group_is_not_blown_up() -> None:
    def check(scaled: Callable) -> None:
        # One right of eight, and one right of two: as far apart as their rewards.
        plain = np.asarray(dr_grpo_advantages(REWARDS, IDS, num_groups=3))
        found = np.asarray(scaled(REWARDS))
        close(found / found[-2], plain / plain[-2])

    check(estimate)
    with pytest.raises(AssertionError):
        check(lambda r: grpo_advantages(r, IDS, num_groups=3))


def test_one_group_is_grpo() -> None:
    ids = np.zeros(12, int)
    for ddof in (0, 1):
        one = grpo_advantages(REWARDS, ids, num_groups=1, ddof=ddof)
        close(estimate(REWARDS, ids, ddof=ddof), one)


def test_the_deviation_is_that_of_the_raw_rewards() -> None:
    centred = dr_grpo_advantages(REWARDS, IDS, num_groups=3)
    other = np.asarray(whiten(centred, np.ones(12)))
    assert np.abs(other - estimate(REWARDS)).max() > 0.1
    close(other, np.asarray(centred) / np.std(centred, ddof=1))


def test_scale_does_not_matter() -> None:
    close(estimate(64 * REWARDS, eps=0), estimate(REWARDS, eps=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ddof": 2}, "ddof must be 0 or 1, got 2"), ({"eps": -1.0}, "eps must be")],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch_std_advantages(REWARDS, IDS, num_groups=3, **change)
