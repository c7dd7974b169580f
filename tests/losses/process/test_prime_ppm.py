"""Implicit process rewards, PRIME's advantages, the ranking of steps."""

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
    batch_counts,
    count_steps,
    implicit_prm_loss,
    implicit_process_rewards,
    pairwise_ranking_loss,
    prime_advantages,
)
from tests.losses import reference_pairs as ref
from tests.losses.worked import EXAMPLES, close

PHI = np.array([[-0.5, -1, -0.4], [-0.8, -0.6, -1.2]], np.float32)
REF = np.array([[-0.7, -0.9, -0.9], [-0.6, -0.9, -1.0]], np.float32)
ONES, OUTCOMES, IDS = np.ones((2, 3)), np.array([1, 0]), np.zeros(2, int)
prime = jax.jit(prime_advantages, static_argnames="num_groups")
GOOD, BAD = np.float32([0.6, 0.2]), np.float32([-0.3, 0.1])


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    with pytest.raises(AssertionError):
        check(mutant)


def test_worked_numbers_of_prime() -> None:
    rewards = implicit_process_rewards(PHI, REF, ONES)
    close(rewards, EXAMPLES["prime.r"])
    close(rewards.sum(1), EXAMPLES["prime.seq"])
    loss, metrics = implicit_prm_loss(PHI, REF, ONES, OUTCOMES, batch_counts(ONES))
    close(loss, EXAMPLES["prime.ce"])
    close(metrics["accuracy"], [2, 2])
    parts = {
        "prime.proc_ret": {"outcome_coef": 0.0},
        "prime.out": {"process_coef": 0.0},
        "prime.adv": {},
    }
    for key, coefficients in parts.items():
        found = prime(rewards, OUTCOMES, ONES, IDS, num_groups=1, **coefficients)
        expected = np.array(EXAMPLES[key])
        close(found, expected[:, None] * ONES if expected.ndim == 1 else expected)


def verl_rewards(rewards: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """Rewards of which `prime_advantages` makes verl's, in groups of one size."""
    mean = (rewards * mask).sum(1, keepdims=True) / mask.sum(1, keepdims=True)
    return rewards + (rewards - mean) / (size - 1)


def test_verl_leaves_out_its_own_token() -> None:
    rewards = np.asarray(EXAMPLES["prime.r"])
    theirs = np.asarray(EXAMPLES["prime.verl_proc"])
    returns = np.cumsum(theirs[:, ::-1], 1)[:, ::-1]
    part = partial(prime, outcome_coef=0.0, num_groups=1)
    found = part(verl_rewards(rewards, ONES, 2), OUTCOMES, ONES, IDS)
    close(found, returns)
    # It is not the paper's.
    assert np.abs(part(rewards, OUTCOMES, ONES, IDS) - returns).max() > 0.01


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_advantages_are_the_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards = (0.1 * rng.normal(size=(7, 4))).astype(np.float32)
    mask = rng.random((7, 4)) < 0.75
    ids, outcomes = rng.integers(0, 3, 7), rng.integers(0, 2, 7)
    coefficients = {"gamma": 0.9, "process_coef": 5.0, "outcome_coef": 2.0}
    found = prime(rewards, outcomes, mask, ids, num_groups=3, **coefficients)
    expected = ref.prime(rewards.astype(float), outcomes, mask, ids, 0.9, 5.0, 2.0)
    close(found, expected)


def test_equal_outcomes_without_process_rewards_give_zero() -> None:
    """Invariant 11, and exactly: eleven times 0.1 has a mean that is not 0.1."""
    mask, ids = np.ones((11, 3)), np.zeros(11, int)
    none, same = np.zeros((11, 3)), np.full(11, 0.1, np.float32)
    assert (prime(none, same, mask, ids, num_groups=1) == 0).all()


def test_masked_tokens_and_rows_are_not_seen() -> None:
    rng = np.random.default_rng(0)
    rewards, outcomes = rng.normal(size=(4, 3)).astype(np.float32), np.ones(4)
    outcomes[1:3] = 0
    mask, ids = np.ones((4, 3)), np.zeros(4, int)
    mask[1, 1] = mask[3] = 0
    plain = prime(rewards, outcomes, mask, ids, num_groups=1)
    dirty = np.where(mask, rewards, np.nan).astype(np.float32)
    outcomes[3] = np.nan
    found = np.asarray(prime(dirty, outcomes, mask, ids, num_groups=1))
    np.testing.assert_array_equal(found, plain)
    assert (found[mask == 0] == 0).all()
    # A row that is masked as a whole is no member of its group, nor is one that is not
    # valid; and an id that names no group gets nothing.
    three = prime(rewards[:3], outcomes[:3], mask[:3], ids[:3], num_groups=1)
    close(found[:3], three)
    valid = np.array([1, 1, 1, 0])
    found_valid = prime(dirty, outcomes, mask, ids, num_groups=1, valid=valid)
    close(found_valid, found)
    outside = prime(dirty, outcomes, mask, np.array([0, 0, 0, 7]), num_groups=1)
    close(outside, found)


def test_a_group_of_one_gets_zero() -> None:
    found = prime(PHI, OUTCOMES, ONES, np.array([0, 1]), num_groups=2)
    assert (found == 0).all()


def test_the_rows_of_a_group_may_lie_anywhere() -> None:
    rng = np.random.default_rng(1)
    rewards, ids = rng.normal(size=(6, 3)).astype(np.float32), np.array([0, 1] * 3)
    outcomes, mask = rng.integers(0, 2, 6), rng.random((6, 3)) < 0.8
    found = np.asarray(prime(rewards, outcomes, mask, ids, num_groups=2))
    order = rng.permutation(6)
    moved = (x[order] for x in (rewards, outcomes, mask, ids))
    mixed = prime(*moved, num_groups=2)
    close(mixed, found[order])

    def check(estimate: Callable) -> None:
        close(estimate(rewards, outcomes, mask, ids), found)

    # Trap 7: groups by position.
    breaks(check, lambda r, o, m, i: prime(r, o, m, np.arange(6) // 3, num_groups=2))


def test_advantages_are_constants() -> None:
    grad = jax.grad(lambda r: prime(r, OUTCOMES, ONES, IDS, num_groups=1).sum())(PHI)
    assert (grad == 0).all()
    coarse = prime(jnp.asarray(PHI, jnp.bfloat16), OUTCOMES, ONES, IDS, num_groups=1)
    assert coarse.dtype == jnp.float32
    both = jax.vmap(partial(prime, num_groups=1))(
        *(np.stack([x, x]) for x in (PHI, OUTCOMES, ONES, IDS))
    )
    close(both[1], prime(PHI, OUTCOMES, ONES, IDS, num_groups=1))


def test_the_loss_at_the_start() -> None:
    """Where phi is the reference s = 0: log 2, whatever the labels."""
    for labels in ([0, 1], [1, 1], [0.5, 0.25]):
        loss, _ = implicit_prm_loss(
            REF, REF, ONES, np.array(labels), batch_counts(ONES)
        )
        close(loss, np.log(2.0))


def test_the_loss_pulls_the_right_way() -> None:
    def loss(x: jax.Array) -> jax.Array:
        return implicit_prm_loss(x, REF, ONES, OUTCOMES, batch_counts(ONES))[0]

    grad = jax.grad(loss)(PHI)
    assert (grad[0] < 0).all()  # right: its tokens become likelier
    assert (grad[1] > 0).all()


def test_ppm_worked_numbers() -> None:
    close(pairwise_ranking_loss(GOOD, BAD)[0], EXAMPLES["ppm.loss"])
    close(pairwise_ranking_loss(GOOD[None], BAD[None])[0], EXAMPLES["ppm.sum_quarter"])
    close(pairwise_ranking_loss(0 * GOOD, 0 * BAD)[0], np.log(2.0))


def test_ppm_with_fewer_candidates() -> None:
    good, bad = np.stack([GOOD, GOOD]), np.stack([BAD, BAD])
    masks = {
        "chosen_mask": np.array([[1, 0], [1, 1]]),
        "rejected_mask": np.array([[1, 1], [0, 0]]),
    }
    steps = count_steps(**masks)
    assert int(steps) == 1  # the second step has no bad candidate
    found = pairwise_ranking_loss(good, bad, **masks, num_steps=steps)[0]
    close(found, pairwise_ranking_loss(GOOD[:1], BAD)[0])

    def check(loss: Callable) -> None:
        close(loss(good, bad, **masks)[0], found)

    check(partial(pairwise_ranking_loss, num_steps=steps))
    # A step without a pair in the denominator (trap 3).
    breaks(check, partial(pairwise_ranking_loss, num_steps=2))

    def always_four(*scores: np.ndarray, **masks: np.ndarray) -> list[jax.Array]:
        return [pairwise_ranking_loss(*scores, **masks, num_steps=1)[0] * 2 / 4]

    breaks(check, always_four)


def test_every_step_weighs_the_same() -> None:
    good = np.stack([GOOD, -GOOD])
    bad = np.stack([BAD, BAD])
    mask = np.array([[1, 1], [1, 0]])
    steps = [
        pairwise_ranking_loss(good[0], bad[0])[0],
        pairwise_ranking_loss(good[1, :1], bad[1])[0],
    ]
    found = pairwise_ranking_loss(good, bad, chosen_mask=mask, num_steps=2)[0]
    close(found, np.mean(steps))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: implicit_process_rewards(PHI, REF[:, :2], ONES), r"\[2, 2\]"),
        (lambda: implicit_process_rewards(PHI, REF, ONES, beta=0), "beta must be"),
        (
            lambda: implicit_prm_loss(PHI, REF, ONES, [1], batch_counts(ONES)),
            r"labels \[1\]",
        ),
        (lambda: implicit_prm_loss(PHI, REF, ONES, OUTCOMES, 2), "counts must come"),
        (
            lambda: prime_advantages(PHI, OUTCOMES, ONES, IDS, num_groups=None),
            "num_groups must be a static integer",
        ),
        (
            lambda: prime_advantages(
                PHI, OUTCOMES, ONES, IDS, num_groups=1, process_coef=np.inf
            ),
            "process_coef must be finite",
        ),
        (
            lambda: prime_advantages(PHI, OUTCOMES[:1], ONES, IDS, num_groups=1),
            r"rewards \[1\]",
        ),
        (lambda: pairwise_ranking_loss(GOOD, BAD[None]), r"got \[2\] and \[1, 2\]"),
        (
            lambda: pairwise_ranking_loss(GOOD, BAD, chosen_mask=np.ones(3)),
            r"chosen_mask \[3\]",
        ),
        (
            lambda: pairwise_ranking_loss(GOOD, BAD, rejected_mask=np.ones(2)),
            "num_steps must be given with a mask",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
