"""Evaluation statistics against counting, and the statistics of a training step."""

from fractions import Fraction
from functools import partial
from itertools import combinations
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    asp,
    avg_at_k,
    explained_variance,
    majority_answer,
    majority_at_k,
    mean_probability,
    pass_at_k,
    pdr,
    zero_advantage_ratio,
)
from tests.losses.worked import EXAMPLES, MASK, NEW, close

compiled_pass = jax.jit(pass_at_k, static_argnums=2)


def exact_pass(n: int, c: int, k: int) -> float:
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))


def test_worked_pass_at_k() -> None:
    cases = np.array([(10, 3, 1), (10, 3, 5), (10, 0, 5), (10, 6, 5), (16, 1, 8)])
    close(pass_at_k(*cases.T), EXAMPLES["pk"])
    close(compiled_pass(10, 3, 5), EXAMPLES["pk"][1])
    close(1 - (1 - 0.3) ** 5, EXAMPLES["pk.naive"])


def test_pass_at_k_counts_subsets() -> None:
    cases = [
        (n, c, k) for n in range(1, 11) for c in range(n + 1) for k in range(1, n + 1)
    ]
    found = np.asarray(pass_at_k(*np.array(cases).T))
    expected = [exact_pass(*case) for case in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    value = dict(zip(cases, found.tolist(), strict=True))
    for n, c, k in cases:
        assert value[n, c, k] >= value.get((n, c, k - 1), 0)  # more tries
        assert value[n, c, k] >= value.get((n, c - 1, k), 0)  # more right samples
        assert value[n, c, k] == 1 or n - c >= k
        assert value[n, c, k] == 0 or c > 0


def test_pass_at_k_is_the_mean_over_subsets() -> None:
    right = np.array([1, 0, 0, 1, 0, 0, 0])

    def check(estimate: float) -> None:
        drawn = [max(right[list(s)]) for s in combinations(range(7), 3)]
        close(estimate, np.mean(drawn))

    check(float(pass_at_k(7, right.sum(), 3)))
    with pytest.raises(AssertionError):
        check(1 - (1 - right.mean()) ** 3)  # the plug-in estimate


def test_pass_at_k_keeps_its_digits() -> None:
    cases = [(10000, 1, 1), (100000, 3, 2), (1024, 5, 512), (4096, 1, 1024)]
    found = pass_at_k(*np.array(cases).T)
    expected = [exact_pass(*case) for case in cases]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_factorials_would_not() -> None:
    n, c, k = np.float32(100000), np.float32(3), np.float32(2)
    log = jax.scipy.special.gammaln
    miss = jnp.exp(log(n - c + 1) + log(n - k + 1) - log(n - c - k + 1) - log(n + 1))
    assert abs(float(1 - miss) / exact_pass(100000, 3, 2) - 1) > 1e-3


def test_what_is_not_defined_is_nan() -> None:
    found = pass_at_k(np.array([4, 0, 8, 8, 8]), np.array([0, 0, 9, -1, 8]), 8)
    assert np.isnan(found).tolist() == [True, True, True, True, False]


def test_pass_at_k_jit_vmap_grad_and_types() -> None:
    n, c = np.array([16, 16, 8]), np.array([1, 9, 2])
    found = compiled_pass(n, c, 8)
    close(found, [0.5, 1, 1])
    close(jax.vmap(lambda n, c: pass_at_k(n, c, 8))(n, c), found)
    coarse = compiled_pass(
        jnp.asarray(n, jnp.bfloat16), jnp.asarray(c, jnp.bfloat16), 8
    )
    assert coarse.dtype == jnp.float32
    close(coarse, found)
    slope = jax.grad(lambda c: compiled_pass(16, c, 8).sum())
    assert (np.asarray(slope(c.astype(np.float32))) == 0).all()


@pytest.mark.parametrize("k", [0, -1, 1.0, np.array([1, 0]), np.array([], int)])
def test_pass_at_k_refuses(k: Any) -> None:
    with pytest.raises(ValueError, match="k must be an integer >= 1, got"):
        pass_at_k(10, 3, k)


def test_pass_at_k_wants_a_static_k() -> None:
    with pytest.raises(ValueError, match="k must be static, got a traced value"):
        jax.jit(pass_at_k)(10, 3, 5)


ANSWERS = ["A", "B", "A", "C", "B", "A"]


def test_worked_averages_and_majorities() -> None:
    right = [a == "A" for a in ANSWERS]
    close(avg_at_k(np.array(right)), EXAMPLES["avgk"])
    assert majority_at_k(ANSWERS, right) == EXAMPLES["maj"]
    assert majority_at_k(ANSWERS, [a == "B" for a in ANSWERS]) == 0


def test_average_of_problems() -> None:
    right = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]])
    close(avg_at_k(right), [0.75, 0.25, 1])
    close(pass_at_k(4, right.sum(1), 1), avg_at_k(right))
    close(jax.jit(avg_at_k)(jnp.asarray(right, jnp.bfloat16)), [0.75, 0.25, 1])
    close(jax.vmap(avg_at_k)(right), avg_at_k(right))
    assert avg_at_k(right > 0).dtype == jnp.float32


def test_a_grade_that_failed_is_not_a_wrong_answer() -> None:
    right, valid = np.array([[1, np.nan, 0], [9, 9, 9]]), [[1, 0, 1], [0, 0, 0]]
    found = np.asarray(avg_at_k(right, valid=np.array(valid)))
    close(found[0], 0.5)
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["B", "A", "A", "B"], "B"),  # ties go to the first seen
        (["A", "B", "B", "A"], "A"),
        ([None, None, None, "B"], "B"),  # no answer is not an answer
        ([None, None], None),
        ([], None),
        ([None, (1, 2), (1, 2), 3], (1, 2)),
        (["1", 1], "1"),
    ],
)
def test_majority(answers: list, winner: Any) -> None:
    assert majority_answer(answers) == winner


def test_majority_is_graded_by_its_first_sample() -> None:
    # 0.5 and 1/2 are two answers here; the grader knows that both are right.
    answers, right = ["1/2", "3", "0.5", "3", "1/2"], [1, 0, 1, 0, 1]
    assert majority_at_k(answers, right) == 1
    assert majority_at_k([None, None, None, "3"], [0, 0, 0, 1]) == 1
    # A None that was graded right by mistake does not count.
    assert majority_at_k([None, None], [1, 1]) == 0


def test_none_would_win_a_plain_vote() -> None:
    answers = [None, None, None, "3", "3"]

    def check(winner: Any) -> None:
        assert winner == "3"

    check(majority_answer(answers))
    with pytest.raises(AssertionError):
        check(max(set(answers), key=answers.count))


def test_majorities_refuse() -> None:
    with pytest.raises(ValueError, match="same length, at least 1, got 2 and 1"):
        majority_at_k(["A", "B"], [1])
    with pytest.raises(ValueError, match="same length, at least 1, got 0 and 0"):
        majority_at_k([], [])
    with pytest.raises(ValueError, match="sequence of answers, got 'AB'"):
        majority_answer("AB")


SEEDS = np.array([1, 1, 0, 1])
VARIANTS = np.array([[1, 0], [1, 1], [1, 0], [0, 1]])


def test_worked_gsm_plus() -> None:
    accuracies = [SEEDS.mean(), VARIANTS.mean()]
    close(accuracies, EXAMPLES["gsm.acc"])
    close(pdr(*accuracies), EXAMPLES["gsm.pdr"])
    close(asp(SEEDS, VARIANTS), EXAMPLES["gsm.asp"])
    found = pdr(np.array([93.25, 73.62]), np.array([85.58, 61.19]))
    close(found, [EXAMPLES["gsm.gpt4"], EXAMPLES["gsm.gpt35"]])


def test_drop_rates() -> None:
    found = np.asarray(pdr(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.75, 0.0])))
    close(found[:2], [0, -0.5])
    assert np.isnan(found[2])
    close(jax.vmap(jax.jit(pdr))(np.array([0.5]), np.array([0.25])), [0.5])
    with pytest.raises(ValueError, match=r"perturbed_accuracy \[1\]"):
        pdr(np.ones(2), np.ones(1))


def test_pairs() -> None:
    found = float(asp(SEEDS, VARIANTS))
    assert found <= min(SEEDS.mean(), VARIANTS.mean())
    valid = np.array([[1, 0], [1, 1], [0, 0], [1, 1]])
    dirty = np.where(valid, VARIANTS, np.nan)
    close(asp(SEEDS, dirty, valid=valid), 4 / 5)
    assert np.isnan(asp(SEEDS, VARIANTS, valid=0 * valid))
    close(jax.jit(asp)(jnp.asarray(SEEDS, jnp.bfloat16), VARIANTS), found)
    with pytest.raises(ValueError, match=r"seed_correct must have shape \[4\]"):
        asp(SEEDS[:3], VARIANTS)
    with pytest.raises(ValueError, match="2 axes"):
        asp(SEEDS, SEEDS)


def test_averages_refuse() -> None:
    with pytest.raises(ValueError, match="correct must have an axis of samples"):
        avg_at_k(1.0)
    with pytest.raises(ValueError, match=r"valid \[3\]"):
        avg_at_k(np.ones(4), valid=np.ones(3))


VALUES, RETURNS = np.array([[0.8, 0.3, 0.6, 0.2]]), np.array([[1.0, 0, 1, 0]])


def test_worked_statistics_of_a_step() -> None:
    close(explained_variance(VALUES, RETURNS, np.ones((1, 4))), EXAMPLES["ev"])
    close(mean_probability(NEW, MASK), EXAMPLES["mean_prob"])
    rewards = np.array([1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1])
    ids = np.repeat([0, 1, 2], 4)
    found = zero_advantage_ratio(rewards, ids, num_groups=3)
    close(found, EXAMPLES["zero_adv"])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e6])
def test_statistics_do_not_see_what_is_masked(garbage: float) -> None:
    wide = [
        np.pad(x, [(0, 1), (0, 2)], constant_values=garbage) for x in (VALUES, RETURNS)
    ]
    mask = np.pad(np.ones((1, 4)), [(0, 1), (0, 2)])
    close(explained_variance(*wide, mask), EXAMPLES["ev"])
    close(mean_probability(np.where(MASK, NEW, garbage), MASK), EXAMPLES["mean_prob"])


def test_explained_variance_of_critics() -> None:
    ones = np.ones((1, 4))
    variance = jax.jit(explained_variance)
    assert variance(RETURNS, RETURNS, ones) == 1
    assert variance(0.3 * ones, RETURNS, ones) == 0
    close(variance(1 - RETURNS, RETURNS, ones), -3)
    close(variance(RETURNS + 7, RETURNS, ones), 1)  # a constant error is not seen
    tenth = np.full((1, 11), 0.1, np.float32)
    assert np.isnan(explained_variance(tenth, tenth, np.ones((1, 11))))
    assert np.isnan(variance(VALUES, RETURNS, 0 * ones))


def test_probability_of_nothing_and_of_extremes() -> None:
    assert mean_probability(NEW, 0 * MASK) == 0
    close(mean_probability(np.array([[-1e6, 0.0]]), np.ones((1, 2))), 0.5)
    assert np.isnan(mean_probability(np.array([[np.nan, 0.0]]), np.ones((1, 2))))


def test_empty_groups_are_no_groups() -> None:
    ratio = jax.jit(partial(zero_advantage_ratio, num_groups=9))
    rewards, ids = np.full(12, 0.1, np.float32), np.arange(12) % 2
    assert ratio(rewards, ids) == 1
    assert ratio(rewards, ids - 7) == 0
    valid = np.arange(12) < 1
    assert ratio(rewards + np.arange(12), ids, valid=valid) == 1
    both = jax.vmap(ratio)(np.stack([rewards, np.arange(12)]), np.stack([ids, ids]))
    assert both.tolist() == [1, 0]


def test_statistics_have_no_gradient() -> None:
    x = NEW.astype(np.float32)
    for function in (
        lambda x: explained_variance(x, NEW**2, MASK),
        lambda x: explained_variance(NEW, x, MASK),
        lambda x: mean_probability(x, MASK),
        lambda x: zero_advantage_ratio(x[0], np.zeros(4, int), num_groups=1),
        lambda x: avg_at_k(x).sum(),
        lambda x: asp(x[0], x),
        lambda x: pdr(x, x).sum(),
    ):
        assert (np.asarray(jax.grad(function)(x)) == 0).all()


def test_statistics_of_a_step_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"returns \[1, 3\]"):
        explained_variance(VALUES, RETURNS[:, :3], np.ones((1, 4)))
    with pytest.raises(ValueError, match=r"mask \[4, 3\]"):
        mean_probability(NEW, MASK[:, :3])
    with pytest.raises(ValueError, match=r"group_ids \[3\]"):
        zero_advantage_ratio(np.ones(4), np.zeros(3, int), num_groups=1)
