"""Advantages of groups: worked numbers, properties, edge cases, refusals."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    dr_grpo_advantages,
    group_signal,
    grpo_advantages,
    rloo_advantages,
)
from tests.losses import reference
from tests.losses.worked import EXAMPLES, close

ESTIMATORS = {
    "grpo": jax.jit(grpo_advantages, static_argnames=("num_groups", "eps")),
    "dr_grpo": jax.jit(dr_grpo_advantages, static_argnames="num_groups"),
    "rloo": jax.jit(rloo_advantages, static_argnames="num_groups"),
}
signals = jax.jit(group_signal, static_argnames="num_groups")
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
ONE = np.array([1.0, 0, 0, 0])
MIXED = np.array([1, 0, 0.25, 0.75])


@pytest.mark.parametrize(
    ("found", "key"),
    [
        (partial(grpo_advantages, ONE), "grpo.ddof1"),
        (partial(grpo_advantages, ONE, ddof=0), "grpo.ddof0"),
        (partial(grpo_advantages, ONE, eps=1e-4), "grpo.trl"),
        (partial(dr_grpo_advantages, ONE), "drgrpo.adv"),
        (partial(rloo_advantages, MIXED), "rloo"),
        (partial(rloo_advantages, MIXED), "rloo_alt"),
    ],
)
def test_worked_numbers(found: Callable, key: str) -> None:
    close(found(group_ids=np.zeros(4, int), num_groups=1), EXAMPLES[key])


@every_estimator
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_the_references(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 5, 12)  # 4 is beyond the groups
    rewards = rng.choice([-1.0, 0.0, 0.1, 1.0, rng.normal()], 12).astype(np.float32)
    valid = rng.random(12) < 0.8
    inside = np.where(ids < 4, ids, -1)
    found = ESTIMATORS[name](rewards, ids, num_groups=4, valid=valid)
    close(found, reference.group_advantages(name, rewards, inside, valid))
    signal = signals(rewards, ids, num_groups=4, valid=valid)
    for g in range(4):
        members = rewards[(ids == g) & valid]
        assert signal[g] == (len(set(members.tolist())) > 1)


@every_estimator
def test_groups_sum_to_zero_and_order_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(0)
    rewards, ids = rng.normal(size=10).astype(np.float32), rng.integers(0, 3, 10)
    found = np.asarray(ESTIMATORS[name](rewards, ids, num_groups=3))
    close(np.bincount(ids, found, 3), np.zeros(3))
    order, names = rng.permutation(10), rng.permutation(3)
    mixed = ESTIMATORS[name](rewards[order], names[ids[order]], num_groups=3)
    close(mixed, found[order])


def test_relations() -> None:
    rng = np.random.default_rng(1)
    rewards, ids = rng.normal(size=8).astype(np.float32), np.arange(8) % 2
    centred = dr_grpo_advantages(rewards, ids, num_groups=2)
    close(rloo_advantages(rewards, ids, num_groups=2), 4 / 3 * np.asarray(centred))
    scaled = np.asarray(grpo_advantages(rewards, ids, num_groups=2, eps=0))
    close(np.bincount(ids, scaled**2), [3.0, 3.0])


@every_estimator
@pytest.mark.parametrize("size", [1, 8, 11])
def test_equal_rewards_give_exactly_zero(name: str, size: int) -> None:
    rewards = np.full(size, 0.1, np.float32)
    for settings_ in ({}, {"valid": np.arange(size) != 3}):
        found = ESTIMATORS[name](
            rewards, np.zeros(size, int), num_groups=2, **settings_
        )
        assert (found == 0).all()


@every_estimator
def test_a_group_of_one_and_an_empty_group(name: str) -> None:
    rewards, ids = np.array([5.0, 1.0, 0.0]), np.array([0, 2, 2])
    found = ESTIMATORS[name](rewards, ids, num_groups=4)
    assert found[0] == 0
    assert (np.asarray(found)[1:] != 0).all()
    assert signals(rewards, ids, num_groups=4).tolist() == [0, 0, 1, 0]


@every_estimator
def test_sequences_that_are_not_valid_are_not_seen(name: str) -> None:
    rewards = np.array([1.0, 0.0, 0.5, np.nan, np.inf])
    valid, ids = np.array([1, 1, 1, 0, 0]), np.zeros(5, int)
    found = np.asarray(ESTIMATORS[name](rewards, ids, num_groups=1, valid=valid))
    close(found[:3], ESTIMATORS[name](rewards[:3], ids[:3], num_groups=1))
    assert (found[3:] == 0).all()
    signal = signals(rewards, ids, num_groups=1, valid=np.array([1, 0, 0, 0, 0]))
    assert signal.tolist() == [False]


@every_estimator
def test_a_common_offset_loses_no_digits(name: str) -> None:
    ids = np.zeros(4, int)
    near = ESTIMATORS[name](ONE, ids, num_groups=1)
    close(ESTIMATORS[name](ONE + 2.0**20, ids, num_groups=1), near)


@every_estimator
def test_a_nan_is_not_hidden(name: str) -> None:
    rewards, ids = np.array([1.0, np.nan, 0.0, 1.0]), np.array([0, 0, 1, 1])
    found = np.asarray(ESTIMATORS[name](rewards, ids, num_groups=2))
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2:]).all()
    assert signals(rewards, ids, num_groups=2).tolist() == [True, True]


@every_estimator
def test_jit_vmap_grad_and_types(name: str) -> None:
    ids = np.array([0, 0, 1, 1])
    estimate = jax.jit(partial(ESTIMATORS[name], num_groups=2))
    found = estimate(MIXED, ids)
    both = jax.vmap(estimate)(np.stack([MIXED, ONE]), np.stack([ids, ids]))
    close(both[0], found)
    assert (jax.grad(lambda r: estimate(r, ids).sum())(MIXED) == 0).all()
    coarse = estimate(jnp.asarray(MIXED, jnp.bfloat16), ids)
    assert coarse.dtype == jnp.float32
    close(coarse, found)
    close(
        estimate(np.array([1, 0, 0, 1]), ids), estimate(np.array([1.0, 0, 0, 1]), ids)
    )


def test_the_filter_keeps_the_worked_groups() -> None:
    # Three groups of the first round and three of the second; 1 surplus.
    rewards = ["1111", "1000", "0000", "0110", "1110", "0010"]
    flat = np.array([float(x) for x in "".join(rewards)])
    kept = signals(flat, np.repeat(np.arange(6), 4), num_groups=6)
    found = [[int(x) for x in r] for r, k in zip(rewards, kept, strict=True) if k]
    assert found[:3] == EXAMPLES["ds.kept"]
    # By pass rate 0, 1/4, 1/2, 3/4, 1.
    rates = np.array([[i < k for i in range(4)] for k in range(5)], float).ravel()
    kept = signals(rates, np.repeat(np.arange(5), 4), num_groups=5)
    assert np.flatnonzero(kept).tolist() == EXAMPLES["flt.dapo"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_ids": np.zeros(3, int)}, r"group_ids \[3\]"),
        ({"rewards": np.ones((4, 2))}, "1 axes"),
        ({"group_ids": np.zeros(4)}, "group_ids must be an integer array"),
        ({"valid": np.ones(3, bool)}, r"valid \[3\]"),
        ({"num_groups": 0}, "num_groups must be a static integer >= 1, got 0"),
        ({"num_groups": None}, "num_groups must be a static integer >= 1, got None"),
    ],
)
@pytest.mark.parametrize("function", [*ESTIMATORS.values(), signals])
def test_refusals(function: Callable, change: dict[str, Any], message: str) -> None:
    given_ = {"rewards": ONE, "group_ids": np.zeros(4, int), "num_groups": 1, **change}
    with pytest.raises(ValueError, match=message):
        function(given_.pop("rewards"), given_.pop("group_ids"), **given_)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ddof": 2}, "ddof must be 0 or 1, got 2"), ({"eps": -1.0}, "eps must be")],
)
def test_refusals_of_grpo(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grpo_advantages(ONE, np.zeros(4, int), num_groups=1, **change)


def test_num_groups_is_required() -> None:
    with pytest.raises(TypeError, match="num_groups"):
        grpo_advantages(ONE, np.zeros(4, int))  # type: ignore[call-arg]
