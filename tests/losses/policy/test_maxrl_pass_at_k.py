"""MaxRL and pass@k: numbers by hand, and the objectives that they are gradients of."""

from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    dr_grpo_advantages,
    maxrl_advantages,
    pass_at_k_advantages,
)
from tests.losses.worked import close

IDS = np.zeros(4, int)


def test_maxrl_by_hand() -> None:
    for right, advantage in ((1, 3.0), (2, 1.0), (3, 1 / 3)):
        rewards = (np.arange(4) < right).astype(float)
        expected = np.where(rewards > 0, advantage, -1.0)
        close(maxrl_advantages(rewards, IDS, num_groups=1), expected)
    for rewards in (np.zeros(4), np.ones(4), np.full(4, -1.0)):
        assert (maxrl_advantages(rewards, IDS, num_groups=1) == 0).all()
    # A mean that is not positive is no likelihood.
    assert (maxrl_advantages(np.array([1.0, -3, 0, 0]), IDS, num_groups=1) == 0).all()


def test_maxrl_with_eps_is_skyrls() -> None:
    found = maxrl_advantages(np.array([1.0, 0, 0, 0]), IDS, num_groups=1, eps=0.25)
    close(found, [1.5, -0.5, -0.5, -0.5])
    with pytest.raises(ValueError, match="eps must be finite and >= 0, got -1"):
        maxrl_advantages(np.ones(4), IDS, num_groups=1, eps=-1)


def test_pass_at_k_by_hand() -> None:
    rewards = np.array([0.25, 1.0, 0.5, 0.0])
    close(pass_at_k_advantages(rewards, IDS, num_groups=1), [0, 0.5, 0, 0])
    one = np.array([0.0, 1, 0, 0])
    close(pass_at_k_advantages(one, IDS, num_groups=1), one)
    scaled = pass_at_k_advantages(one, IDS, num_groups=1, scale=True, eps=0.0)
    close(scaled, 2 * one)  # the standard deviation is 1/2
    two = np.array([0.0, 1, 1, 0])
    assert (pass_at_k_advantages(two, IDS, num_groups=1) == 0).all()


def expected_gradient(estimate: Callable, logit: float, samples: int) -> float:
    """E[1/n sum_i A_i d log p(y_i) / d logit] over all outcomes of n coins."""
    p = 1 / (1 + np.exp(-logit))
    total = 0.0
    for outcome in product((0.0, 1.0), repeat=samples):
        r = np.array(outcome)
        a = np.asarray(estimate(r, np.zeros(samples, int), num_groups=1))
        chance = np.prod(np.where(r > 0, p, 1 - p))
        total += chance * (a * (r - p)).mean()
    return total


def slope_of(objective: Callable, logit: float) -> float:
    return float(jax.grad(lambda x: objective(jax.nn.sigmoid(x)))(logit))


@pytest.mark.parametrize("logit", [-2.0, 0.5])
def test_the_objectives(logit: float) -> None:
    n = 4
    # pass@k, k = n, of which each sample has an n-th of the estimator's sum.
    found = expected_gradient(pass_at_k_advantages, logit, n)
    close(n * found, slope_of(lambda p: 1 - (1 - p) ** n, logit))
    # MaxRL: the series of log p, cut off at n - 1.
    found = expected_gradient(maxrl_advantages, logit, n)
    series = lambda p: -sum((1 - p) ** k / k for k in range(1, n))  # noqa: E731
    close(found, slope_of(series, logit))
    # And Dr. GRPO's is (n - 1) / n of REINFORCE.
    found = expected_gradient(dr_grpo_advantages, logit, n)
    close(found, slope_of(lambda p: (n - 1) / n * p, logit))


def test_a_failed_grader_is_left_out() -> None:
    rewards, valid = jnp.array([9.0, 1.0, 0.0, 0.0]), np.array([0, 1, 1, 1])
    found = maxrl_advantages(rewards, IDS, num_groups=1, valid=valid)
    close(found, [0, 2, -1, -1])
    found = pass_at_k_advantages(rewards, IDS, num_groups=1, valid=valid)
    close(found, [0, 1, 0, 0])
