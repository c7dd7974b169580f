"""VAPO's lambda: worked numbers, bounds, and what GAE makes of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import gae, length_adaptive_lambda
from tests.losses.worked import EXAMPLES, close

LENGTHS = np.array([10, 20, 25, 100, 1000, 10000])
compiled = jax.jit(length_adaptive_lambda)


def test_worked_numbers() -> None:
    close(length_adaptive_lambda(LENGTHS), EXAMPLES["vapo.lam"])
    close(compiled(np.array([30])), [EXAMPLES["vapo.lam30"]])


def test_decoupled_gae() -> None:
    rewards = np.zeros((1, 30))
    rewards[0, -1] = 1
    values, mask = np.linspace(0.2, 0.8, 30)[None, :], np.ones((1, 30))
    estimate = jax.jit(partial(gae, rewards, values, mask))
    policy = estimate(lam=length_adaptive_lambda(np.array([30])))[0]
    close(policy[0, 0], EXAMPLES["vapo.adv0"])
    close(policy[0, -1], EXAMPLES["vapo.advm1"])
    close(estimate(lam=np.array([0.95]))[0][0, 0], EXAMPLES["vapo.adv0_l95"])
    # The critic keeps lambda 1: its targets are the returns whatever the values are.
    targets = estimate(lam=np.array([1.0]))[1]
    close(targets[0, 0], EXAMPLES["vapo.ret0"])
    close(targets, np.ones((1, 30)))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 1.0])
def test_bounds_and_order(alpha: float) -> None:
    lengths = np.arange(40000).astype(np.float32)
    found = np.asarray(compiled(lengths, alpha=alpha))
    horizon = alpha * np.maximum(lengths.astype(np.float64), 1e-9)
    close(found, np.clip(1 - 1 / horizon, 0, 1))
    assert found.min() == 0
    assert found.max() < 1
    assert (np.diff(found) >= 0).all()


def test_the_weights_add_up_to_a_share_of_the_length() -> None:
    found = np.asarray(compiled(LENGTHS[2:]), np.float64)
    close(1 / (1 - found), 0.05 * LENGTHS[2:], rtol=1e-4)


def test_short_responses_do_not_get_a_negative_lambda() -> None:
    def check(lam: np.ndarray) -> None:
        assert (lam >= 0).all()
        assert np.isfinite(lam).all()

    short = np.arange(21).astype(np.float32)
    check(np.asarray(length_adaptive_lambda(short)))
    with pytest.raises(AssertionError), np.errstate(divide="ignore"):
        check(1 - 1 / (0.05 * short))  # the formula as it is printed


def test_jit_vmap_grad_and_types() -> None:
    found = compiled(LENGTHS.astype(np.int32))
    assert found.dtype == jnp.float32
    close(compiled(jnp.asarray([16, 64, 256], jnp.bfloat16)), [0, 0.6875, 0.921875])
    close(jax.vmap(length_adaptive_lambda)(LENGTHS), found)
    slope = jax.grad(lambda n, a: compiled(n, alpha=a).sum(), argnums=(0, 1))
    for grad in slope(LENGTHS.astype(np.float32), 0.05):
        assert (np.asarray(grad) == 0).all()


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan])
def test_refusals(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be finite and > 0, got"):
        length_adaptive_lambda(LENGTHS, alpha=alpha)
