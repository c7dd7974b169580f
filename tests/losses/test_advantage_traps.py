"""Faults of advantages and returns seen in public libraries, with what they break.

A test asserts the property of the library's function and then that the same assertion
fails on a mutant: the faulty form as it was seen elsewhere. The numbers of the sections
are those of the project's list of traps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.traps import breaks, plain_grpo, slope, zero
from tests.losses.worked import EXAMPLES, close

# 7. Groups by reshape.


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_7_groups_of_any_size_and_order(name: str) -> None:
    rewards = np.array([1.0, 0.0, 0.5, 0.25, 0.75, 2.0])
    ids = np.array([0, 1, 1, 0, 1, 1])
    expected = reference.group_advantages(name, rewards, ids)

    def check(estimate: Callable) -> None:
        close(estimate(rewards, ids), expected)

    check(partial(getattr(lib, f"{name}_advantages"), num_groups=2))

    def by_position(r: np.ndarray, ids: np.ndarray) -> np.ndarray:
        return reference.group_advantages(name, r, np.arange(6) // 3)

    breaks(check, by_position)


# 8. The standard deviation of equal rewards is not 0 in float32.


def test_8_equal_rewards_have_no_advantage() -> None:
    def check(estimate: Callable) -> None:
        for size in (8, 11):
            r = np.full(size, 0.1, np.float32)
            assert zero(estimate(r, np.zeros(size, int), num_groups=1))

    check(lib.grpo_advantages)
    check(lib.dr_grpo_advantages)
    check(lib.rloo_advantages)
    breaks(check, plain_grpo)


def test_8_equal_rewards_have_no_signal() -> None:
    def check(signal: Callable) -> None:
        r = np.full(11, 0.1, np.float32)
        assert zero(signal(r, np.zeros(11, int), num_groups=1))

    check(lib.group_signal)
    breaks(check, lambda r, ids, num_groups: (jnp.asarray(r).std() > 0)[None])


# 9. A group of one.


def test_9_a_group_of_one_has_no_advantage() -> None:
    def check(estimate: Callable) -> None:
        assert zero(estimate(np.array([3.0]), np.array([0]), num_groups=1))

    for estimate in (
        lib.grpo_advantages,
        lib.dr_grpo_advantages,
        lib.rloo_advantages,
        lambda *a, **k: lib.grpo_advantages(*a, ddof=0, **k),
    ):
        check(estimate)
    breaks(check, lambda r, ids, num_groups: r)  # the raw reward
    breaks(check, plain_grpo)  # nan


# 10. Silent ddof and eps.


def test_10_the_defaults_are_the_papers_code() -> None:
    def check(estimate: Callable) -> None:
        r = np.array([1.0, 0.0, 0.0, 0.0])
        found = estimate(r, np.zeros(4, int), num_groups=1)
        close(found, EXAMPLES["grpo.ddof1"], rtol=5e-7, atol=0)

    check(lib.grpo_advantages)
    breaks(check, partial(lib.grpo_advantages, ddof=0))
    breaks(check, partial(lib.grpo_advantages, eps=1e-4))
    breaks(check, partial(lib.grpo_advantages, eps=0.0))


# 13. Values carried wrongly over masked tokens.


def insert(x: np.ndarray, garbage: float) -> np.ndarray:
    """A masked column between the second and the third, one before and one after."""
    return np.insert(x, [0, 2, 4], garbage, axis=1)


def test_13_inserting_masked_tokens_changes_nothing_else() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 2, 4))
    mask = np.ones((2, 4))
    wide = insert(mask, 0.0)

    def check(function: Callable) -> None:
        narrow = np.asarray(function(rewards, values, mask))
        for garbage in (1e6, np.nan):
            found = function(insert(rewards, garbage), insert(values, garbage), wide)
            found = np.asarray(found)
            close(found[wide > 0].reshape(2, 4), narrow)
            assert (found[wide == 0] == 0).all()

    settings = {"gamma": 0.9, "lam": 0.8}
    check(lambda r, v, m: lib.gae(r, v, m, **settings)[0])
    check(lambda r, v, m: lib.gae(r, v, m, **settings)[1])
    check(lambda r, v, m: lib.discounted_returns(r, m, gamma=0.9))

    def by_position(r: Any, v: Any, m: Any, reset: bool) -> np.ndarray:
        """Masked tokens count as steps; `reset` zeroes what is carried on them."""
        out, a, after = np.zeros(r.shape), 0.0, 0.0
        for t in reversed(range(r.shape[1])):
            on = m[:, t] > 0
            now = np.where(on, v[:, t], 0.0)
            delta = np.where(on, r[:, t], 0.0) + 0.9 * after - now
            a = delta + 0.9 * 0.8 * a
            if reset:
                a, now = a * on, now * on
            after, out[:, t] = now, np.where(on, a, 0.0)
        return out

    breaks(check, partial(by_position, reset=False))
    breaks(check, partial(by_position, reset=True))


# 47. The gradient of a standard deviation.


@pytest.mark.parametrize("rewards", [[0.5, 0.5, 0.5], [0.5]])
def test_47_rewards_that_depend_on_parameters(rewards: list[float]) -> None:
    def check(estimate: Callable) -> None:
        r, ids = np.array(rewards, np.float32), np.zeros(len(rewards), int)
        value, grad = slope(lambda r: (estimate(r, ids, num_groups=1) ** 2).sum())(r)
        assert value == 0
        assert zero(grad)

    check(lib.grpo_advantages)
    check(lib.dr_grpo_advantages)
    check(lib.rloo_advantages)
    breaks(check, plain_grpo)
