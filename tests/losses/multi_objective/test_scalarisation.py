"""One loss from several."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    dwa_weights,
    smooth_tchebycheff,
    tchebycheff,
    uncertainty_weighting,
    weighted_sum,
)
from tests.losses import reference
from tests.losses.worked import EXAMPLES, close

LOSSES, HALF = np.float32([0.9, 0.4]), np.float32([0.5, 0.5])
IDEAL = np.float32([0.1, 0.1])
LOG_VARIANCES = np.float32([-0.5, 0.3])
SCALARISATIONS = {
    "weighted_sum": (
        lambda x, w, z: weighted_sum(x, w),
        lambda x, w, z: np.sum(w * x),
    ),
    "tchebycheff": (
        lambda x, w, z: tchebycheff(x, w, ideal=z),
        lambda x, w, z: np.max(w * (x - z)),
    ),
    "smooth_tchebycheff": (
        lambda x, w, z: smooth_tchebycheff(x, w, ideal=z, mu=0.3),
        lambda x, w, z: 0.3 * np.log(np.sum(np.exp(w * (x - z) / 0.3))),
    ),
    "uncertainty_weighting": (
        lambda x, w, z: uncertainty_weighting(x, z),
        lambda x, w, z: np.sum(x * np.exp(-z) + z) / 2,
    ),
}
SLOPES = {
    name: jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))
    for name, (f, _) in SCALARISATIONS.items()
}
every = pytest.mark.parametrize("name", SCALARISATIONS)


def test_worked_numbers() -> None:
    close(weighted_sum(LOSSES, HALF), EXAMPLES["sc.lin"])
    close(tchebycheff(LOSSES, HALF, ideal=0.1), EXAMPLES["sc.tch"])
    close(smooth_tchebycheff(LOSSES, HALF, ideal=IDEAL), EXAMPLES["sc.stch"])
    close(LOSSES / np.float32([1, 0.8]), EXAMPLES["dwa.w"])
    close(dwa_weights(LOSSES, [1.0, 0.8]), EXAMPLES["dwa.lambda"])
    value, grad = jax.value_and_grad(uncertainty_weighting, argnums=1)(
        LOSSES, LOG_VARIANCES
    )
    close(value, EXAMPLES["uw.loss"])
    close(grad, EXAMPLES["uw.grad"])
    best = np.float32(EXAMPLES["uw.opt"])
    close(jax.grad(uncertainty_weighting, argnums=1)(LOSSES, best), [0.0, 0.0])


@every
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_value_and_gradient_are_the_references(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.1, 2, 4).astype(np.float32) for _ in range(3)]
    value, grads = SLOPES[name](*arrays)
    exact = [x.astype(np.float64) for x in arrays]
    plain = SCALARISATIONS[name][1]
    close(value, plain(*exact))
    slope = reference.numerical_gradient(lambda x: plain(x, *exact[1:]), exact[0])
    close(grads[0], slope, rtol=1e-5)
    # Weights and ideal are constants, log-variances are parameters.
    assert (grads[1] == 0).all()
    if name == "uncertainty_weighting":
        slope = reference.numerical_gradient(lambda z: plain(*exact[:2], z), exact[2])
        close(grads[2], slope, rtol=1e-5)
    else:
        assert (grads[2] == 0).all()


@every
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extremes_stay_finite(name: str, size: float) -> None:
    for sign in (1.0, -1.0):
        far = np.float32([size, -size, 0, 1]) * np.float32(sign)
        value, grads = SLOPES[name](far, np.ones(4, np.float32), far)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads)


@every
def test_bfloat16_vmap_and_lists(name: str) -> None:
    function = SCALARISATIONS[name][0]
    coarse = function(jnp.asarray(LOSSES, jnp.bfloat16), HALF, IDEAL)
    assert coarse.dtype == jnp.float32
    both = jax.vmap(function)(*(np.stack([x, x]) for x in (LOSSES, HALF, IDEAL)))
    close(both[1], function(LOSSES, HALF, IDEAL))
    listed = function([jnp.float32(0.9), 0.4], [0.5, 0.5], IDEAL)
    close(listed, function(LOSSES, HALF, IDEAL))


def test_the_smooth_form_bounds_the_maximum() -> None:
    hard = tchebycheff(LOSSES, HALF)
    for mu in (1.0, 0.1, 1e-3):
        smooth = smooth_tchebycheff(LOSSES, HALF, mu=mu)
        assert hard - 1e-6 <= smooth <= hard + mu * np.log(2) + 1e-6


def test_dwa() -> None:
    close(dwa_weights(LOSSES, LOSSES), [1.0, 1.0])  # the first two epochs
    rng = np.random.default_rng(0)
    found = dwa_weights(rng.uniform(0.1, 2, 5), rng.uniform(0.1, 2, 5))
    close(found.sum(), 5.0)
    close(dwa_weights(LOSSES, [1.0, 0.8], temperature=1e6), [1.0, 1.0], atol=1e-5)
    # What fell more slowly weighs more.
    assert dwa_weights([0.9, 0.5], [1.0, 1.0])[0] > 1
    close(dwa_weights([0.9, 0.5], [0.0, 1.0]), [2.0, 0.0])  # not nan
    assert (jax.grad(lambda x: dwa_weights(x, LOSSES).sum())(LOSSES) == 0).all()


def test_a_variance_far_off_comes_back() -> None:
    """Below -20 the exponential is a line: its slope still outweighs s / 2."""

    def slope(function: Callable, s: float) -> jax.Array:
        return jax.grad(lambda v: function(jnp.float32([0.5]), v))(jnp.float32([s]))[0]

    def check(function: Callable) -> None:
        for s in (-19.0, -30.0, -1e4):
            assert np.isfinite(slope(function, s))
            assert slope(function, s) < 0  # s grows

    check(uncertainty_weighting)

    def clipped(x: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.sum(x * jnp.exp(jnp.clip(-s, -20, 20)) + s) / 2

    def plain(x: jax.Array, s: jax.Array) -> jax.Array:
        return jnp.sum(x * jnp.exp(-s) + s) / 2

    for mutant in (clipped, plain):
        with pytest.raises(AssertionError):
            check(mutant)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weighted_sum([], []), "losses must hold at least one number"),
        (lambda: dwa_weights([], []), "losses must hold at least one number"),
        (lambda: uncertainty_weighting(np.zeros(0), np.zeros(0)), "at least one"),
        (lambda: weighted_sum(LOSSES, HALF[:1]), r"weights \[1\]"),
        (lambda: tchebycheff(LOSSES, HALF, ideal=np.ones(3)), r"ideal \[3\]"),
        (lambda: smooth_tchebycheff(LOSSES, HALF, mu=0.0), "mu must be"),
        (lambda: dwa_weights(LOSSES, [1.0]), r"previous_losses \[1\]"),
        (lambda: dwa_weights(LOSSES, LOSSES, temperature=0), "temperature must be"),
        (lambda: uncertainty_weighting(LOSSES, [0.0]), r"log_variances \[1\]"),
        (lambda: weighted_sum(np.ones((2, 2)), HALF), "losses must have 1 axes"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
