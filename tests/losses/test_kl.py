"""KL estimators: worked numbers, the table of expectations, precision, refusals."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    batch_counts,
    grpo_loss,
    kl_abs,
    kl_in_reward,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty,
    sequence_mean,
)
from tests.losses.worked import EXAMPLES, MASK, NEW, OLD, REF, close

ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
K3 = jax.jit(jax.value_and_grad(lambda x: kl_k3(x, jnp.zeros(()))))
POLICY = np.array([0.2, -0.1, 0.5], np.float32)
REFERENCE = np.array([0.0, 0.3, 0.1], np.float32)


@every_estimator
def test_worked_tokens(name: str) -> None:
    tokens = np.array(EXAMPLES[f"kl.{name}"])
    close(kl_penalty(NEW, REF, MASK, estimator=name), tokens)
    close(np.where(MASK, ESTIMATORS[name](NEW, REF), 0), tokens)
    close(tokens.sum() / MASK.sum(), EXAMPLES[f"kl.{name}m"])


def expected_loss(name: str, gradient: str | None = None) -> Callable:
    """The expectation of a penalty over all tokens of a three-way choice."""
    p = np.exp(POLICY) / np.exp(POLICY).sum()

    def loss(z: jax.Array) -> jax.Array:
        new, ref = jax.nn.log_softmax(z), jax.nn.log_softmax(REFERENCE)
        tokens = kl_penalty(
            new[None], ref[None], np.ones((1, 3)), estimator=name, gradient=gradient
        )
        return (p * tokens[0]).sum()  # p stays: the tokens were sampled before

    return jax.jit(loss)


def slope(loss: Callable) -> Callable:
    return jax.jit(jax.grad(loss))


@pytest.mark.parametrize(
    ("name", "key"), [("k1", "klg.true"), ("k2", "klg.Ek2"), ("k3", "klg.Ek3")]
)
def test_expected_values(name: str, key: str) -> None:
    close(expected_loss(name)(POLICY), EXAMPLES[key])


@every_estimator
def test_expected_gradients(name: str) -> None:
    close(slope(expected_loss(name))(POLICY), EXAMPLES[f"klg.g_{name}"])


def test_gradients_are_those_of_the_two_divergences() -> None:
    # Numerical gradients of KL(policy || reference) and KL(reference || policy).
    close(slope(expected_loss("k2"))(POLICY), EXAMPLES["klg.rev_num"])
    close(slope(expected_loss("k3"))(POLICY), EXAMPLES["klg.fwd_num"])


def test_worked_expectations_off_policy() -> None:
    sampler = jax.nn.log_softmax(np.array([0.4, 0.0, -0.2], np.float32))

    def tokens(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        new, ref = jax.nn.log_softmax(z), jax.nn.log_softmax(REFERENCE)
        penalty = kl_penalty(new[None], ref[None], np.ones((1, 3)))[0]
        return penalty, jnp.exp(new - sampler)

    def weighed(z: jax.Array) -> jax.Array:
        penalty, ratio = tokens(z)
        return (jnp.exp(sampler) * ratio * penalty).sum()

    biased = (jnp.exp(sampler) * tokens(POLICY)[0]).sum()
    close(biased, EXAMPLES["klg.k3_off"])
    value, grad = jax.jit(jax.value_and_grad(weighed))(POLICY)
    close(value, EXAMPLES["klg.isk3"])
    close(grad, EXAMPLES["klg.isk3_grad"])


def test_value_of_one_and_gradient_of_another() -> None:
    for value in ESTIMATORS:
        mixed = expected_loss(value, "k2")
        close(mixed(POLICY), expected_loss(value)(POLICY))
        close(slope(mixed)(POLICY), EXAMPLES["klg.rev"])
        close(slope(expected_loss(value, "k3"))(POLICY), EXAMPLES["klg.fwd"])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    d=st.floats(-20, 100, width=32, allow_subnormal=False),
    exponent=st.integers(0, 12),
)
def test_k3_keeps_its_digits(d: float, exponent: int) -> None:
    d32 = np.float32(d) / np.float32(4.0**exponent)
    value, grad = (np.asarray(x) for x in K3(d32))
    exact = np.float64(d32)
    series = exact**2 / 2 - exact**3 / 6 + exact**4 / 24
    expected = series if abs(exact) < 1e-3 else np.expm1(-exact) + exact
    # Squares of numbers below 1e-19 leave float32's normal range.
    close(value, expected, atol=1e-37)
    if exact != -20:  # there the bound sets in
        close(grad, -np.expm1(-exact), atol=1e-37)
    assert value >= 0


def test_signs_and_symmetry() -> None:
    d = np.concatenate([np.linspace(-30, 30, 601), np.geomspace(1e-12, 1, 200)])
    d = np.concatenate([d, -d]).astype(np.float32)
    zero = np.zeros_like(d)
    assert (np.asarray(kl_k2(d, zero)) >= 0).all()
    assert (np.asarray(kl_k3(d, zero)) >= 0).all()
    assert (np.asarray(kl_k3(zero, zero)) == 0).all()
    close(kl_k1(d, zero), -np.asarray(kl_k1(zero, d)))


@every_estimator
def test_any_shape_bfloat16_and_a_constant_reference(name: str) -> None:
    new, ref = jnp.asarray(NEW[0], jnp.bfloat16), jnp.asarray(REF[0], jnp.bfloat16)
    found = ESTIMATORS[name](new, ref)
    assert found.dtype == jnp.float32
    close(found, ESTIMATORS[name](np.float32(new), np.float32(ref)))
    assert ESTIMATORS[name](jnp.float32(-1), jnp.float32(-2)).shape == ()
    grad = jax.grad(lambda r: ESTIMATORS[name](NEW, r).sum())(REF.astype(np.float32))
    assert (grad == 0).all()


def test_worked_kl_in_the_reward() -> None:
    outcome = np.array([1, 0, 1, 0.5])
    close(kl_in_reward(outcome, OLD, REF, MASK, coef=0.1), EXAMPLES["rpp.tok_r"])
    tokens = np.zeros((4, 4))
    tokens[[0, 1, 2, 3], [3, 1, 2, 0]] = outcome
    tokens[MASK == 0] = np.nan
    close(kl_in_reward(tokens, OLD, REF, MASK, coef=0.1), EXAMPLES["rpp.tok_r"])


def test_kl_in_the_reward_is_a_constant_without_garbage() -> None:
    old = np.where(MASK, OLD, np.nan).astype(np.float32)
    reward = lambda x, r: kl_in_reward(r, x, REF, MASK, coef=0.1, estimator="k3").sum()  # noqa: E731
    outcome = np.ones(4, np.float32)
    assert np.isfinite(reward(old, outcome))
    for grad in jax.grad(reward, (0, 1))(old, outcome):
        assert (grad == 0).all()
    none = kl_in_reward(outcome, OLD, REF, MASK, coef=0.0)
    assert none.sum() == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: kl_penalty(NEW, REF, MASK, estimator="k4"),
            "estimator must be one of k1, k2, k3, abs, .*, got 'k4'",
        ),
        (
            lambda: kl_penalty(NEW, REF, MASK, gradient="low_var_kl"),
            "gradient must be one of k1, k2, k3, abs, .*, got 'low_var_kl'",
        ),
        (lambda: kl_penalty(NEW, REF[:2], MASK), r"ref_logprobs \[2, 4\]"),
        (
            lambda: kl_penalty(NEW, REF.astype(int), MASK),
            "ref_logprobs must be a float",
        ),
        (lambda: kl_k3(NEW, REF[0]), "one shape"),
        (lambda: kl_k1(NEW.astype(int), REF), "logprobs must be a floating"),
        (
            lambda: kl_in_reward(np.ones(4), OLD, REF, MASK, coef=-1.0),
            "coef must be finite and >= 0, got -1.0",
        ),
        (lambda: kl_in_reward(np.ones(3), OLD, REF, MASK, coef=0.1), r"shape \[4\]"),
        (
            lambda: kl_in_reward(np.ones((4, 3)), OLD, REF, MASK, coef=0.1),
            r"shape \[4, 4\]",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Of tokens that another policy sampled.

SAMPLED_BY = np.array([0.6, 0.1, 0.3])


def expected_ratio_loss(z: jax.Array, name: str, gradient: str | None = None) -> Any:
    """The expectation over an older policy's tokens, each a response of its own."""
    new, ref = jax.nn.log_softmax(z), jax.nn.log_softmax(REFERENCE)
    tokens = kl_penalty(
        new[:, None],
        ref[:, None],
        np.ones((3, 1)),
        estimator=name,
        gradient=gradient,
        old_logprobs=np.log(SAMPLED_BY)[:, None],
    )
    return (SAMPLED_BY * tokens[:, 0]).sum()


def true_kl(z: jax.Array) -> jax.Array:
    new, ref = jax.nn.log_softmax(z), jax.nn.log_softmax(REFERENCE)
    return (jnp.exp(new) * (new - ref)).sum()


@pytest.mark.parametrize("name", ["k3_ratio", "k3_sequence_ratio"])
def test_with_the_ratio_value_and_gradient_are_unbiased(name: str) -> None:
    close(expected_ratio_loss(POLICY, name), true_kl(POLICY))
    close(jax.grad(expected_ratio_loss)(POLICY, name), jax.grad(true_kl)(POLICY))
    # Without it neither is.
    assert abs(expected_ratio_loss(POLICY, "k3") - true_kl(POLICY)) > 1e-3
    plain = jax.grad(expected_ratio_loss)(POLICY, "k3")
    assert np.abs(plain - jax.grad(true_kl)(POLICY)).max() > 1e-2


def test_value_and_gradient_with_the_ratio_are_chosen_apart() -> None:
    close(
        expected_ratio_loss(POLICY, "k3", "k3_ratio"), expected_ratio_loss(POLICY, "k3")
    )
    slope = jax.grad(expected_ratio_loss)(POLICY, "k3", "k3_ratio")
    close(slope, jax.grad(true_kl)(POLICY))


def test_the_ratio_by_hand() -> None:
    # d = log 2 and log 1/2, ratios 1.25 and 0.5.
    new, ref, old = np.log([[0.5, 0.25]]), np.log([[0.25, 0.5]]), np.log([[0.4, 0.5]])
    k3 = np.array([np.log(2) - 0.5, 1 - np.log(2)])
    ones = np.ones((1, 2))

    def total(x: jax.Array, name: str) -> jax.Array:
        return kl_penalty(x, ref, ones, estimator=name, old_logprobs=old).sum()

    close(total(new, "k3_ratio"), 1.25 * k3[0] + 0.5 * k3[1])
    slope = jax.grad(total)(jnp.asarray(new, jnp.float32), "k3_ratio")
    close(slope, [[1.25 * np.log(2), -0.5 * np.log(2)]])  # rho d
    s = np.sqrt(1.25 * 0.5)
    close(total(new, "k3_sequence_ratio"), s * k3.sum())
    slope = jax.grad(total)(jnp.asarray(new, jnp.float32), "k3_sequence_ratio")
    close(slope, [[s * (k3.sum() / 2 + 0.5), s * (k3.sum() / 2 - 1)]])


def test_far_from_the_reference_the_gradient_keeps_its_digits() -> None:
    """Two parts of 3e6 whose sum is -15: what differentiating the product would add."""
    new, ref, mask = jnp.full((1, 1), -15.0), np.zeros((1, 1)), np.ones((1, 1))
    slope = jax.grad(
        lambda x: kl_penalty(x, ref, mask, estimator="k3_ratio", old_logprobs=new).sum()
    )
    close(slope(new), [[-15.0]])


def test_abs_by_hand() -> None:
    new, ref = jnp.array([[-1.5, -1.0, -0.25]]), np.array([[-1.0, -1.0, -1.0]])
    close(kl_abs(new, ref), [[0.5, 0, 0.75]])
    mask = np.ones((1, 3))
    slope = jax.grad(lambda x: kl_penalty(x, ref, mask, estimator="abs").sum())
    np.testing.assert_array_equal(slope(new), [[-1, 0, 1]])


def test_a_policy_loss_takes_the_ratio_to_its_own_old_policy() -> None:
    counts, a = batch_counts(MASK), np.zeros(4)
    found, _ = grpo_loss(
        *(NEW, OLD, a, MASK, counts),
        ref_logprobs=REF,
        kl_coef=1.0,
        kl_estimator="k3_ratio",
    )
    tokens = kl_penalty(NEW, REF, MASK, estimator="k3_ratio", old_logprobs=OLD)
    close(found, sequence_mean(tokens, MASK, counts))


def test_a_ratio_needs_the_old_policy() -> None:
    with pytest.raises(ValueError, match="must be given for 'k3_ratio', got None"):
        kl_penalty(NEW, REF, MASK, estimator="k3_ratio")
    with pytest.raises(ValueError, match="must be given for 'k3_sequence_ratio'"):
        kl_penalty(NEW, REF, MASK, gradient="k3_sequence_ratio")
    with pytest.raises(ValueError, match="old_logprobs and mask must have 2 axes"):
        kl_penalty(NEW, REF, MASK, estimator="k3_ratio", old_logprobs=OLD[:2])
