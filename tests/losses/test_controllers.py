"""Controllers of the KL's and the entropy's weight, step by step."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    adaptive_entropy_update,
    adaptive_kl_update,
)
from tests.losses.worked import EXAMPLES, close

ZIEGLER = {"target": 6.0, "horizon": 10000, "num_samples": 256}
kl_step = jax.jit(partial(adaptive_kl_update, **ZIEGLER))
exact = partial(close, rtol=1e-6, atol=1e-9)


def test_worked_kl() -> None:
    exact(kl_step(0.2, 9.0), EXAMPLES["akl.up"])
    exact(kl_step(0.2, 5.0), EXAMPLES["akl.dn"])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(kl=st.floats(-10, 100), coef=st.floats(1e-6, 10))
def test_one_step_moves_by_a_fifth_of_n_over_h_at_most(kl: float, coef: float) -> None:
    factor = float(kl_step(coef, kl)) / np.float32(coef)
    assert 1 - 0.2 * 0.0256 - 1e-6 <= factor <= 1 + 0.2 * 0.0256 + 1e-6
    assert (factor - 1) * (kl - 6) >= -1e-5
    exact(kl_step(coef, 6.0), coef)


def trace(update: Callable, entropies: list[float]) -> np.ndarray:
    coef, rows = jnp.float32(0), []
    for e in entropies:
        coef, alpha = update(coef, e)
        rows.append([e, float(coef), float(alpha)])
    return np.array(rows)


def test_worked_entropy() -> None:
    expected = np.array(EXAMPLES["magic.trace"])

    def check(update: Callable) -> None:
        exact(trace(update, expected[:, 0].tolist()), expected)

    check(jax.jit(adaptive_entropy_update))

    def without_the_gate(coef: jax.Array, e: float) -> tuple[jax.Array, jax.Array]:
        coef = adaptive_entropy_update(coef, e)[0]
        return coef, coef

    def without_the_lag(coef: jax.Array, e: float) -> tuple[jax.Array, jax.Array]:
        return adaptive_entropy_update(coef, e)[0], coef * (e <= 0.2)

    for mutant in (without_the_gate, without_the_lag):
        with pytest.raises(AssertionError):
            check(mutant)


def test_bounds_hold() -> None:
    low = trace(partial(adaptive_entropy_update, high=0.00025), [0.1] * 4)
    exact(low[:, 1], [1e-4, 2e-4, 2.5e-4, 2.5e-4])
    high = trace(adaptive_entropy_update, [0.3, 0.1, 0.3, 0.3])
    exact(high[:, 1], [0, 1e-4, 0, 0])
    assert high[:, 2].tolist()[2:] == [0, 0]


def test_trl_differs_at_the_target_and_in_its_settings() -> None:
    trl = partial(adaptive_entropy_update, inclusive=True, step=0.005, high=1.0)
    # By hand: at the target TRL raises the weight, Skywork-OR1's code lowers it.
    at = trace(partial(trl, target=0.5), [0.5, 0.5, 0.6])
    exact(at[:, 1:], [[0.005, 0.005], [0.01, 0.01], [0.005, 0]])
    code = trace(partial(adaptive_entropy_update, target=0.5, step=0.005), [0.5, 0.5])
    exact(code[:, 1:], [[0, 0], [0, 0]])


def test_a_nan_shows() -> None:
    assert np.isnan(kl_step(0.2, np.nan))
    assert all(np.isnan(x) for x in adaptive_entropy_update(0.001, np.nan))


def test_43_state_is_an_argument_and_nothing_has_a_gradient() -> None:
    # An evaluation that measures an entropy cannot move what training goes on with.
    coef = jnp.float32(0.001)
    first = adaptive_entropy_update(coef, 0.1)
    adaptive_entropy_update(coef, 0.9)
    assert first == adaptive_entropy_update(coef, 0.1)

    def total(coef: jax.Array, x: jax.Array) -> jax.Array:
        return sum(adaptive_entropy_update(coef, x)) + kl_step(coef, x)

    assert jax.grad(total, (0, 1))(coef, jnp.float32(0.1)) == (0, 0)


def test_vmap_and_bfloat16() -> None:
    coefs, found = jnp.array([0.2, 0.2]), jnp.array([9.0, 5.0])
    exact(jax.vmap(kl_step)(coefs, found), [EXAMPLES["akl.up"], EXAMPLES["akl.dn"]])
    moved, alpha = adaptive_entropy_update(0.0, jnp.bfloat16(0.1))
    assert moved.dtype == alpha.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: adaptive_kl_update(0.1, 1.0, **{**ZIEGLER, "target": 0.0}),
            "target must be finite and > 0, got 0.0",
        ),
        (
            lambda: adaptive_kl_update(0.1, 1.0, **{**ZIEGLER, "horizon": -1}),
            "horizon must be finite and > 0, got -1",
        ),
        (
            lambda: adaptive_kl_update(0.1, 1.0, **{**ZIEGLER, "num_samples": 0}),
            "num_samples must be finite and > 0, got 0",
        ),
        (
            lambda: adaptive_kl_update(jnp.ones(2), jnp.ones(3), **ZIEGLER),
            "one shape",
        ),
        (
            lambda: adaptive_entropy_update(0.0, 0.1, low=0.1, high=0.01),
            "high must be finite and >= low = 0.1, got 0.01",
        ),
        (
            lambda: adaptive_entropy_update(0.0, 0.1, step=-1e-4),
            "step must be finite and >= 0, got -0.0001",
        ),
        (lambda: adaptive_entropy_update(0.0, jnp.ones(2)), "one shape"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
