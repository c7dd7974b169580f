"""CISPO and SAPO: every token keeps a gradient, of a bounded size."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    cispo,
    clipped_surrogate,
    policy_gradient,
    sapo,
    sequence_mean,
    token_mean,
)
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, close

COUNTS = batch_counts(MASK)
ARRAYS = (NEW, OLD, ADVANTAGES, MASK)
X = NEW.astype(np.float32)
CAP = partial(cispo, ratio_high=1.28)
both = pytest.mark.parametrize("objective", [CAP, sapo], ids=["cispo", "sapo"])


def gradient(objective: Callable, x: Any = X, a: Any = ADVANTAGES) -> np.ndarray:
    return np.asarray(jax.grad(lambda x: objective(x, OLD, a, MASK).sum())(x))


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


@pytest.mark.parametrize(
    ("high", "key"), [(1.28, "cispo.loss"), (5.0, "cispo.loss_cap5")]
)
def test_worked_cispo(high: float, key: str) -> None:
    tokens = cispo(*ARRAYS, ratio_high=high)
    close(token_mean(tokens, MASK, COUNTS), EXAMPLES[key])


def test_16_the_weights_are_constants() -> None:
    expected = -np.array(EXAMPLES["cispo.w"]) * ADVANTAGES[:, None]

    def check(objective: Callable) -> None:
        close(gradient(objective), np.where(MASK, expected, 0))

    check(CAP)

    def mutant(x: Any, old: Any, a: Any, m: Any) -> jax.Array:
        ratio = jnp.clip(jnp.exp(jnp.where(m, x - old, 0.0)), 0.0, 1.28)
        return jnp.where(m, -ratio * a[:, None] * x, 0.0)

    breaks(check, mutant)


def test_16_the_cap_is_that_of_the_ratio() -> None:
    def check(objective: Callable) -> None:
        weight = -gradient(objective, a=np.ones(4))[MASK > 0]
        close(weight.max(), 5.0)

    check(partial(cispo, ratio_high=5.0))
    breaks(check, lambda *arrays: cispo(*arrays, ratio_high=1 + 5.0))
    # A distance from 1 where the ratio is asked for is refused.
    with pytest.raises(
        ValueError, match=r"ratio_high must be finite and >= 1, got 0.2"
    ):
        cispo(*ARRAYS, ratio_high=0.2)


def test_a_lower_bound_lifts_small_weights() -> None:
    weight = -gradient(partial(cispo, ratio_low=0.9, ratio_high=2.0), a=np.ones(4))
    ratio = np.exp(np.where(MASK, NEW - OLD, 0))
    close(weight, np.where(MASK, np.clip(ratio, 0.9, 2.0), 0))


def test_worked_sapo() -> None:
    tokens = np.asarray(sapo(*ARRAYS))
    close(tokens, -ADVANTAGES[:, None] * np.array(EXAMPLES["sapo.gate"]))
    close(sequence_mean(tokens, MASK, COUNTS), EXAMPLES["sapo.loss"])
    ratio = np.exp(np.where(MASK, NEW - OLD, 0))
    slopes = np.where(MASK, -ADVANTAGES[:, None] * ratio * EXAMPLES["sapo.w"], 0)
    close(gradient(sapo), slopes)


def test_the_gate_keeps_its_digits_where_it_is_nearly_closed() -> None:
    # p is 1 - 8e-6 here: 1 - p taken from it has two digits left.
    d, one = np.full((1, 1), 2.5, np.float32), np.ones((1, 1), np.float32)
    z = 1.05 * (np.exp(2.5) - 1)
    expected = 4 * np.exp(2.5) / (np.exp(z) + 2 + np.exp(-z))

    def check(objective: Callable) -> None:
        grad = jax.grad(lambda x: objective(x, 0 * d, -one, one).sum())(d)
        close(grad, [[expected]], rtol=1e-5, atol=0)

    check(sapo)

    def mutant(x: Any, old: Any, a: Any, m: Any) -> jax.Array:
        return -a * 4 / 1.05 * jax.nn.sigmoid(1.05 * (jnp.exp(x - old) - 1.0))

    breaks(check, mutant)


def test_no_token_is_dropped() -> None:
    def check(objective: Callable) -> None:
        assert (gradient(objective)[MASK > 0] != 0).all()

    check(CAP)
    check(sapo)
    breaks(check, clipped_surrogate)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_at_the_start_of_the_update_both_are_reinforce(tau: float) -> None:
    start = OLD.astype(np.float32)
    expected = gradient(lambda x, old, a, m: policy_gradient(x, a, m), start)
    close(gradient(CAP, start), expected)
    soft = partial(sapo, tau_positive=tau, tau_negative=2 * tau)
    close(gradient(soft, start), expected)


def test_the_sign_of_the_advantage_picks_the_temperature() -> None:
    def at(advantage: float, **taus: float) -> np.ndarray:
        return gradient(partial(sapo, **taus), a=np.full(4, advantage))

    close(at(1.0, tau_positive=2.0, tau_negative=9.0), at(1.0, tau_positive=2.0))
    close(at(-1.0, tau_positive=9.0, tau_negative=2.0), at(-1.0, tau_negative=2.0))
    assert (at(0.0) == 0).all()


@both
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_17_large_log_ratios_stay_finite(objective: Callable, advantage: float) -> None:
    old = np.array([[0.0, -100.0, 100.0, -100.0]], np.float32)
    mask, a = np.array([[1, 1, 1, 0]]), np.array([advantage], np.float32)

    def check(objective: Callable) -> None:
        value, grad = jax.value_and_grad(lambda x: objective(x, old, a, mask).sum())(
            np.zeros((1, 4), np.float32)
        )
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        assert np.asarray(grad)[0, 3] == 0

    check(objective)

    def mutant(x: Any, old: Any, a: Any, m: Any) -> jax.Array:
        return m * -a[:, None] * jax.nn.sigmoid(jnp.exp(x - old) - 1.0)

    breaks(check, mutant)


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        (CAP, {"ratio_low": 1.2}, r"ratio_low must be in \[0, 1\], got 1.2"),
        (CAP, {"ratio_low": -0.1}, r"ratio_low must be in \[0, 1\], got -0.1"),
        (CAP, {"ratio_high": np.inf}, "ratio_high must be finite and >= 1, got inf"),
        (sapo, {"tau_positive": 0.0}, "tau_positive must be finite and > 0, got 0.0"),
        (sapo, {"tau_negative": -1.0}, "tau_negative must be finite and > 0, got -1"),
    ],
)
def test_refusals_of_settings(
    objective: Callable, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        objective(*ARRAYS, **settings)


@both
def test_refusals_of_arrays(objective: Callable) -> None:
    with pytest.raises(ValueError, match=r"old_logprobs \[2, 4\]"):
        objective(NEW, OLD[:2], ADVANTAGES, MASK)
    with pytest.raises(ValueError, match=r"like the mask or \[4\], got \[3\]"):
        objective(NEW, OLD, ADVANTAGES[:3], MASK)


def test_the_upper_bound_has_no_default() -> None:
    with pytest.raises(TypeError, match="ratio_high"):
        cispo(*ARRAYS)  # type: ignore[call-arg]
