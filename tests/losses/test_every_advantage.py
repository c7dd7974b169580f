"""What holds for every sequence-level advantage estimator, and how it could break."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.advantage_list import (
    ADVANTAGES,
    Estimator,
    lengths_of,
)
from tests.losses.worked import close

B, GROUPS = 12, 4
every = pytest.mark.parametrize("case", ADVANTAGES, ids=str)
COMPILED = {case.name: jax.jit(case.estimate, static_argnums=2) for case in ADVANTAGES}
IDS = np.array([0, 1, 2, 0, 1, 1, 2, 0, 1, 2, 1, 0])
REWARDS = np.array([1, 0, 0.5, 0.25, 1, 0, 2, 0.75, 0.25, -1, 0.5, 0], np.float32)


def run(case: Estimator, rewards: Any, ids: Any = IDS, valid: Any = None) -> np.ndarray:
    valid = np.ones(B, bool) if valid is None else valid
    return np.asarray(COMPILED[case.name](rewards, ids, GROUPS, valid))


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def test_no_estimator_is_left_out() -> None:
    listed = {f"{case.name}_advantages" for case in ADVANTAGES}
    for info in pkgutil.walk_packages(lib.__path__, f"{lib.__name__}."):
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_") or not name.endswith("_advantages"):
                continue
            parameters = inspect.signature(function).parameters
            if "group_ids" in parameters and "mask" not in parameters:
                assert name in listed


@every
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_the_references(case: Estimator, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, GROUPS + 1, B)  # -1 and GROUPS are no groups
    rewards = rng.choice([-1.0, 0.0, 0.1, 1.0, rng.normal()], B).astype(np.float32)
    valid = rng.random(B) < 0.8
    inside = np.where(ids < GROUPS, ids, -1)
    expected = case.reference(rewards.astype(np.float64), inside, valid)
    close(run(case, rewards, ids, valid), expected)


@every
def test_permuted_rows_and_relabelled_groups(case: Estimator) -> None:
    found = run(case, REWARDS)
    order = np.random.default_rng(0).permutation(B)
    names = np.array([2, 3, 0, 1])
    close(run(case, REWARDS[order], names[IDS[order]]), found[order])


@pytest.mark.parametrize("case", [c for c in ADVANTAGES if c.centred], ids=str)
def test_the_baseline_is_the_groups(case: Estimator) -> None:
    found = run(case, REWARDS)
    weights = np.asarray(lengths_of(REWARDS)) if case.name == "opo" else np.ones(B)
    close(np.bincount(IDS, found * weights, GROUPS), np.zeros(GROUPS), atol=4e-6)


@every
def test_a_group_of_one_and_an_empty_group(case: Estimator) -> None:
    ids = np.where(np.arange(B) == 4, 3, np.arange(B) % 2)  # group 2 is empty

    def check(estimate: Callable) -> None:
        found = np.asarray(estimate(5 * REWARDS, ids))
        assert found[4] == 0
        assert (np.delete(found, 4) != 0).any()

    check(partial(run, case))
    # The raw reward, as where a group of one has mean 0 and standard deviation 1.
    breaks(check, lambda r, i: np.where(np.arange(B) == 4, r, run(case, r, i)))


@every
@pytest.mark.parametrize("value", [0.1, 0.3, -1.7])
def test_equal_rewards_give_exactly_zero(case: Estimator, value: float) -> None:
    silent = np.arange(B) != 2  # eleven equal rewards and a group of one
    alone = np.where(silent, 0, 1)
    mixed = np.repeat([0, 1], [8, 4])  # and beside a group that has signal

    def check(estimate: Callable) -> None:
        same = np.full(B, value, np.float32)
        assert (np.asarray(estimate(same, alone)) == 0).all()
        some = np.where(mixed == 0, same, REWARDS)
        found = np.asarray(estimate(some, mixed))
        assert (found[mixed == 0] == 0).all()
        assert (found[mixed == 1] != 0).any()

    check(partial(run, case))

    def plain(rewards: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """GRPO by its formula alone, float32 sums as they come."""
        out = np.zeros(B, np.float32)
        for g in set(ids.tolist()):
            r = rewards[ids == g]
            mean = np.float32(np.add.accumulate(r)[-1] / np.float32(len(r)))
            out[ids == g] = (r - mean) / (np.sqrt(((r - mean) ** 2).mean()) + 1e-6)
        return out

    breaks(check, plain)


@every
def test_sequences_that_are_left_out_are_not_seen(case: Estimator) -> None:
    valid = np.arange(B) % 4 != 3
    inside = np.where(valid, IDS, -1)
    expected = case.reference(REWARDS.astype(np.float64), inside, valid)
    # Of pass@k only the best of a group has anything.
    assert np.count_nonzero(expected) > (4 if case.centred else 1)
    for garbage in (np.nan, np.inf, -1e6):
        rewards = np.where(valid, REWARDS, garbage).astype(np.float32)
        close(run(case, rewards, IDS, valid), expected)
        close(run(case, rewards, np.where(valid, IDS, -1)), expected)
        close(run(case, rewards, np.where(valid, IDS, GROUPS)), expected)
        for found in (run(case, rewards, IDS, valid), run(case, rewards, inside)):
            assert (found[~valid] == 0).all()
    assert (run(case, REWARDS, IDS, np.zeros(B, bool)) == 0).all()
    breaks(lambda found: close(found, expected), np.where(valid, run(case, REWARDS), 0))


@every
def test_groups_of_any_size_and_order(case: Estimator) -> None:
    ones = np.ones(B, bool)
    expected = case.reference(REWARDS.astype(np.float64), IDS, ones)

    def check(estimate: Callable) -> None:
        close(estimate(REWARDS), expected)

    check(partial(run, case))
    by_position = np.arange(B) // 4
    breaks(check, lambda r: case.reference(r.astype(np.float64), by_position, ones))


@every
def test_no_advantage_is_blown_up(case: Estimator) -> None:
    rewards = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], np.float32)
    ids = np.repeat([0, 1], [8, 4])

    def check(estimate: Callable) -> None:
        assert np.abs(estimate(rewards, ids)).max() < 10

    check(partial(run, case))

    def std_of_the_others(rewards: np.ndarray, ids: np.ndarray) -> np.ndarray:
        out = np.zeros(B)
        for i in range(B):
            others = np.delete(rewards, i)[np.delete(ids, i) == ids[i]]
            out[i] = (rewards[i] - others.mean()) / (others.std() + 1e-6)
        return out

    breaks(check, std_of_the_others)


@every
def test_a_common_offset_loses_no_digits(case: Estimator) -> None:
    rewards = np.abs(REWARDS)
    close(run(case, rewards + np.float32(2.0**18)), run(case, rewards))


@every
def test_a_nan_is_not_hidden(case: Estimator) -> None:
    rewards = np.where(np.arange(B) == 0, np.nan, REWARDS)
    found = run(case, rewards)[IDS == 0]
    if case.name == "gdpo":  # the group is left out, and `lost_group_ratio` says so
        assert (found == 0).all()
        assert lib.lost_group_ratio(rewards, IDS, num_groups=GROUPS) > 0
    else:
        assert np.isnan(found).all()


@every
def test_jit_vmap_and_types(case: Estimator) -> None:
    found = run(case, REWARDS)
    assert found.dtype == np.float32
    assert found.shape == (B,)
    two = jax.vmap(lambda r: COMPILED[case.name](r, IDS, GROUPS, None))
    both = jax.jit(two)(np.stack([REWARDS, REWARDS[::-1]]))
    close(both[0], found)
    close(both[1], run(case, REWARDS[::-1]))
    coarse = jnp.asarray(REWARDS, jnp.bfloat16)  # nothing is lost in these rewards
    coarse = run(case, coarse, IDS.astype(np.int8), np.ones(B))
    assert coarse.dtype == np.float32
    close(coarse, found)
    whole = (2 * REWARDS).astype(np.int32)
    close(run(case, whole), run(case, whole.astype(np.float32)))


@every
def test_nothing_is_differentiated(case: Estimator) -> None:
    weights = np.arange(B, dtype=np.float32)

    def total(rewards: jax.Array) -> jax.Array:
        return (weights * COMPILED[case.name](rewards, IDS, GROUPS, IDS >= 0)).sum()

    for rewards in (REWARDS, np.full(B, 0.1, np.float32)):
        assert (np.asarray(jax.grad(total)(rewards)) == 0).all()


@every
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": IDS[:3]}, r"group_ids \[3\]"),
        ({"ids": IDS.astype(np.float32)}, "group_ids must be an integer array"),
        ({"valid": np.ones(3, bool)}, r"valid \[3\]"),
        ({"num_groups": 0}, "num_groups must be a static integer >= 1, got 0"),
        ({"num_groups": None}, "num_groups must be a static integer >= 1, got None"),
    ],
)
def test_refusals(case: Estimator, change: dict[str, Any], message: str) -> None:
    given_ = {"ids": IDS, "num_groups": GROUPS, "valid": None, **change}
    with pytest.raises(ValueError, match=message):
        case.estimate(REWARDS, *given_.values())


def test_relations() -> None:
    found = {c.name: run(c, REWARDS[IDS.argsort()], np.sort(IDS)) for c in ADVANTAGES}
    sizes = np.bincount(IDS)[np.sort(IDS)]
    close(found["rloo"], sizes / (sizes - 1) * found["dr_grpo"])
    close(found["gpg"], found["dr_grpo"])  # every group has signal
    close(found["grpo_ddof0"], np.sqrt(sizes / (sizes - 1)) * found["grpo"], atol=1e-5)
    squares = np.bincount(np.sort(IDS), found["grpo"] ** 2)
    close(squares, np.bincount(IDS) - 1, rtol=1e-5)


def test_the_defaults_are_the_published_ones() -> None:
    # A silent change of ddof is 6.9% at eight responses.
    ids = np.where(np.arange(B) < 8, 0, -1)
    rewards = (np.arange(B) == 0).astype(np.float32)
    cases = {case.name: case for case in ADVANTAGES}
    sample, population = (run(cases[n], rewards, ids) for n in ("grpo", "grpo_ddof0"))
    close(population[:8] / sample[:8], np.full(8, np.sqrt(8 / 7)), rtol=1e-5)
    expected = reference.group_advantages("grpo", rewards, ids)
    close(sample, expected)
    breaks(lambda found: close(found, expected), population)
