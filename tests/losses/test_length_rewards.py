"""The cosine reward and Kimi's, against worked numbers and the faulty forms."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    cosine_length_reward,
    kimi_length_reward,
)
from tests.losses import reference_rollout as ref
from tests.losses.worked import EXAMPLES, close

TRL = {"correct_range": (1.0, 0.5), "wrong_range": (-1.0, -0.5), "max_length": 1000}
kimi = jax.jit(kimi_length_reward, static_argnames="num_groups")


def test_worked_cosine_of_the_paper() -> None:
    lengths, right, wrong = np.array(EXAMPLES["yeo"]).T
    limit = {"max_length": 1000, "exceed_penalty": -10.0, "exceed_margin": 16}
    ones = np.ones(len(lengths))
    close(cosine_length_reward(lengths, ones, **limit), right)
    close(cosine_length_reward(lengths, 0 * ones, **limit), wrong)


@pytest.mark.parametrize("length", [0, 250, 500, 1000, 1500])
def test_worked_cosine_of_trl(length: int) -> None:
    lengths = np.full(2, length)
    found = cosine_length_reward(lengths, np.array([1, 0]), **TRL)
    close(found, [EXAMPLES[f"cos.c{length}"], EXAMPLES[f"cos.w{length}"]])


def test_the_ends_are_exact() -> None:
    found = cosine_length_reward(np.array([0, 1000, 9000]), np.ones(3), **TRL)
    assert found.tolist() == [1.0, 0.5, 0.5]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_cosine_is_the_reference_and_falls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.sort(rng.integers(0, 3000, 8))
    for right, ends in ((True, (2.0, 1.0)), (False, (-10.0, 0.0))):
        found = cosine_length_reward(lengths, np.full(8, right), max_length=2000)
        close(found, [ref.cosine(n, 2000, *ends) for n in lengths])
        assert (np.diff(found) * (-1 if right else 1) >= 0).all()


def check_long(reward: Callable) -> None:
    """Twice the limit earns what the limit earns."""
    close(reward(2000.0), reward(1000.0))


def test_a_cosine_without_an_end_rewards_long_text_again() -> None:
    check_long(lambda n: cosine_length_reward(n, 1, **TRL))

    def periodic(n: float) -> float:
        return 0.5 + 0.25 * (1 + math.cos(math.pi * n / 1000))

    with pytest.raises(AssertionError):
        check_long(periodic)


def test_minimum_and_maximum_swap_for_wrong_answers() -> None:
    def check(wrong: tuple[float, float]) -> None:
        settings = {**TRL, "wrong_range": wrong}
        found = cosine_length_reward(np.array([0, 999]), np.zeros(2), **settings)
        assert found[0] < found[1]

    check((-1.0, -0.5))
    with pytest.raises(AssertionError):
        check((-0.5, -1.0))  # (maximum, minimum), as for right answers


def test_worked_kimi() -> None:
    lengths, right = np.array([100, 200, 150, 300]), np.array([1, 1, 0, 0])
    close(kimi(lengths, right, np.zeros(4, int), num_groups=1), EXAMPLES["kimi"])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_kimi_is_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths, right = rng.integers(1, 50, 9), rng.random(9) < 0.5
    ids, valid = rng.integers(0, 4, 9), rng.random(9) < 0.8
    found = kimi(lengths, right, ids, num_groups=4, valid=valid)
    close(found, ref.kimi(lengths, right, ids, valid))


def test_7_groups_are_ids_and_not_positions() -> None:
    lengths, right = np.array([10, 100, 20, 400]), np.ones(4, bool)
    ids = np.array([0, 1, 0, 1])

    def check(reward: Callable) -> None:
        close(reward(lengths, right, ids), [0.5, 0.5, -0.5, -0.5])

    check(lambda *arrays: kimi(*arrays, num_groups=2))
    by_position = np.array([0, 0, 1, 1])
    with pytest.raises(AssertionError):
        check(lambda n, c, _: kimi(n, c, by_position, num_groups=2))


def test_equal_lengths_and_groups_of_one_give_nothing() -> None:
    lengths, ids = np.array([7, 7, 9, 3]), np.array([0, 0, 1, 5])
    found = kimi(lengths, np.ones(4), ids, num_groups=2)
    assert found.tolist() == [0.0] * 4


def test_what_is_not_valid_may_be_anything() -> None:
    lengths = np.array([1.0, np.nan, 3.0, 1e6])
    valid = np.array([1, 0, 1, 0])
    found = kimi(lengths, np.ones(4), np.zeros(4, int), num_groups=1, valid=valid)
    assert found.tolist() == [0.5, 0.0, -0.5, 0.0]


def test_vmap_and_dtypes() -> None:
    lengths = jnp.array([[1, 2], [5, 3]], jnp.int16)
    right = jnp.ones((2, 2), bool)
    found = jax.vmap(lambda n, c: kimi(n, c, jnp.zeros(2, int), num_groups=1))(
        lengths, right
    )
    assert found.tolist() == [[0.5, -0.5], [-0.5, 0.5]]
    rewards = jax.vmap(lambda n, c: cosine_length_reward(n, c, **TRL))(lengths, right)
    assert rewards.dtype == found.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cosine_length_reward(1, 1, max_length=0),
            "max_length must be finite and > 0, got 0",
        ),
        (
            lambda: cosine_length_reward(1, 1, max_length=9, correct_range=(1.0,)),
            r"correct_range must be \(short, long\), got \(1.0,\)",
        ),
        (
            lambda: cosine_length_reward(1, 1, max_length=9, wrong_range=(0, math.nan)),
            "wrong_range must be finite, got nan",
        ),
        (
            lambda: cosine_length_reward(1, 1, max_length=9, exceed_margin=-1),
            "exceed_margin must be finite and >= 0, got -1",
        ),
        (
            lambda: cosine_length_reward(np.ones(2), np.ones(3), max_length=9),
            "lengths and correct must have 1 axes and one shape",
        ),
        (
            lambda: kimi_length_reward(
                np.ones(2), np.ones(2), np.zeros(3, int), num_groups=1
            ),
            "one shape",
        ),
        (
            lambda: kimi_length_reward(
                np.ones(2), np.ones(2), np.zeros(2), num_groups=1
            ),
            "group_ids must be an integer array",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
