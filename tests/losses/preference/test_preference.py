"""Preference losses with and without a reference: worked numbers, relations, traps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    count_pairs,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    irpo_loss,
    length_normalised_dpo_loss,
    nca_loss,
    orpo_loss,
    robust_dpo_loss,
    simpo_loss,
)
from tests.losses.worked import EXAMPLES, close


def row(*numbers: float) -> list[np.ndarray]:
    return [np.array([x], np.float32) for x in numbers]


POLICY, REFERENCE = row(-10, -12), row(-11, -11.5)
PAIR = POLICY + REFERENCE
LENGTHS = [np.array([5]), np.array([6])]
AVERAGES = [x / n for x, n in zip(PAIR, LENGTHS + LENGTHS, strict=True)]
BATCH = [
    x.astype(np.float32)
    for x in np.random.default_rng(0).normal(-8.0, 2.0, (4, 6)).astype(np.float32)
]
SIZES = [np.array([5, 3, 9, 1, 2, 4]), np.array([2, 8, 3, 3, 7, 5])]
EVERY = {
    "dpo": (dpo_loss, BATCH),
    "robust_dpo": (robust_dpo_loss, BATCH),
    "ipo": (ipo_loss, BATCH),
    "hinge": (hinge_loss, BATCH),
    "nca": (nca_loss, BATCH),
    "length_normalised": (length_normalised_dpo_loss, BATCH + SIZES),
    "irpo": (irpo_loss, BATCH + SIZES[:1]),
    "simpo": (simpo_loss, BATCH[:2] + SIZES),
    "orpo": (orpo_loss, BATCH[:2] + SIZES),
}
every_loss = pytest.mark.parametrize("name", EVERY)


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


@pytest.mark.parametrize(
    ("loss", "arrays", "key"),
    [
        (dpo_loss, PAIR, "dpo.loss"),
        (partial(dpo_loss, label_smoothing=0.1), PAIR, "dpo.cdpo"),
        (robust_dpo_loss, PAIR, "dpo.robust"),
        (hinge_loss, PAIR, "dpo.hinge"),
        (ipo_loss, PAIR, "dpo.ipo_sum"),
        (ipo_loss, AVERAGES, "dpo.ipo_avg"),
        (
            partial(length_normalised_dpo_loss, beta=0.1),
            PAIR + LENGTHS,
            "dpo.sigmoid_norm",
        ),
        (simpo_loss, POLICY + LENGTHS, "dpo.simpo"),
        (partial(nca_loss, beta=0.1), PAIR, "dpo.nca"),
        (irpo_loss, PAIR + LENGTHS[:1], "dpo.irpo"),
        (orpo_loss, row(-10, -15) + LENGTHS, "dpo.orpo"),
    ],
)
def test_worked_numbers(loss: Callable, arrays: list[np.ndarray], key: str) -> None:
    close(loss(*arrays)[0], EXAMPLES[key])


def test_worked_numbers_of_the_metrics() -> None:
    metrics = dpo_loss(*PAIR)[1]
    close(metrics["margin"][0], 0.1 * EXAMPLES["dpo.delta"])
    rewards = nca_loss(*PAIR, beta=0.1)[1]
    found = [rewards["chosen_reward"][0], rewards["rejected_reward"][0]]
    close(found, EXAMPLES["dpo.nca_r"])
    for rejected, key in ((-12, "dpo.orpo_logodds"), (-15, "dpo.orpo_logodds2")):
        odds = orpo_loss(*row(-10, rejected), *LENGTHS)[1]["log_odds"]
        close(odds[0], EXAMPLES[key])
    close(irpo_loss(*PAIR, *LENGTHS[:1])[1]["nll"], [2.0, 1.0])


def test_the_gradient_of_dpo() -> None:
    grads = jax.grad(lambda *x: dpo_loss(*x)[0], argnums=(0, 1))(*PAIR)
    close(grads[0], [-EXAMPLES["dpo.grad_coef"]])
    close(grads[1], [EXAMPLES["dpo.grad_coef"]])


def test_a_pair_that_the_policy_has_not_moved() -> None:
    """D = 0, the start of every training; invariant 10."""
    start = [*POLICY, *POLICY]
    log2 = np.log(2.0)
    for loss in (dpo_loss, robust_dpo_loss):
        for e in (0.0, 0.1, 0.3):
            close(loss(*start, label_smoothing=e)[0], log2)
    close(nca_loss(*start)[0], 2 * log2)
    close(hinge_loss(*start)[0], 1.0)
    close(ipo_loss(*start, beta=0.25)[0], 4.0)
    close(length_normalised_dpo_loss(*start, *LENGTHS)[0], log2)
    assert dpo_loss(*start)[1]["accuracy"][0] == 0  # undecided is not right


def test_relations_of_the_family() -> None:
    plain = dpo_loss(*BATCH)[0]
    close(robust_dpo_loss(*BATCH, label_smoothing=0.0)[0], plain)
    close(dpo_loss(*BATCH, label_smoothing=0.0)[0], plain)
    close(irpo_loss(*BATCH, SIZES[0], alpha=0.0)[0], plain)
    at_margin = [np.float32([2.0]), *row(0, 0, 0)]
    close(ipo_loss(*at_margin, beta=0.25)[0], 0.0)
    ones = [np.ones(6), np.ones(6)]
    close(length_normalised_dpo_loss(*BATCH, *ones, beta=0.1)[0], plain)
    # SimPO's reference is a constant: gamma 0 and one length give DPO against 0.
    zeros = [0 * BATCH[0], 0 * BATCH[0]]
    close(
        simpo_loss(*BATCH[:2], *ones, beta=0.1, gamma=0.0)[0],
        dpo_loss(*BATCH[:2], *zeros)[0],
    )
    # Swapped labels: conservative DPO of one is that of the other.
    swapped = [BATCH[1], BATCH[0], BATCH[3], BATCH[2]]
    e = 0.3
    close(
        dpo_loss(*BATCH, label_smoothing=e)[0],
        (1 - e) * plain + e * dpo_loss(*swapped)[0],
    )


def test_equal_averages() -> None:
    pair, log2 = [*row(-10, -12), *LENGTHS], np.log(2.0)
    close(simpo_loss(*pair, gamma=0.0)[0], log2)
    close(orpo_loss(*pair, lam=0.3)[0], 2.0 + 0.3 * log2)


def test_robust_dpo_is_unbiased() -> None:
    """With a fraction e of flipped labels its mean is DPO's on right ones."""
    swapped = [BATCH[1], BATCH[0], BATCH[3], BATCH[2]]
    e = 0.2

    def check(loss: Callable) -> None:
        mixed = (1 - e) * loss(*BATCH)[0] + e * loss(*swapped)[0]
        close(mixed, dpo_loss(*BATCH)[0])

    check(partial(robust_dpo_loss, label_smoothing=e))
    breaks(check, partial(dpo_loss, label_smoothing=e))


def test_the_hinge_is_flat_at_its_end() -> None:
    pair = [np.float32([10.0]), *row(0, 0, 0)]  # beta D = 1
    assert jax.grad(lambda x: hinge_loss(x, *pair[1:])[0])(pair[0])[0] == 0


def test_nca_has_a_minimum_of_its_own() -> None:
    best = np.log(2.0)  # r_w with sigmoid(r_w) = 2/3
    slope = jax.grad(lambda x: nca_loss(x, *row(-3, 0, -3), beta=1.0)[0])
    close(slope(np.float32([best])), [0.0])
    assert slope(np.float32([best + 1]))[0] > 0


# Traps of the field, the faulty form beside the property.


@every_loss
def test_1_the_count_is_that_of_the_mini_batch(name: str) -> None:
    loss, arrays = EVERY[name]
    valid = np.array([1, 1, 1, 0, 1, 0], bool)
    unmasked = [x[valid] for x in arrays]
    parts = [slice(0, 1), slice(1, 6)]
    total = count_pairs(valid)

    def check(part: Callable) -> None:
        found = sum(part([x[p] for x in arrays], valid[p], len(parts)) for p in parts)
        close(found, loss(*unmasked)[0])

    check(lambda x, v, n: loss(*x, valid=v, num_pairs=total)[0])
    # A mean over the rows at hand, then over the micro-batches.
    breaks(check, lambda x, v, n: loss(*x, valid=v, num_pairs=v.sum())[0] / n)
    # Rows that are not pairs in the denominator (trap 3).
    breaks(check, lambda x, v, n: loss(*x, valid=v, num_pairs=len(valid))[0])


@every_loss
def test_1_valid_does_not_come_without_the_count(name: str) -> None:
    loss, arrays = EVERY[name]
    with pytest.raises(ValueError, match="num_pairs must be given with valid"):
        loss(*arrays, valid=np.ones(6))


def test_a_sigmoid_before_its_log_overflows() -> None:
    def check(log_sigmoid: Callable) -> None:
        def loss(x: jax.Array) -> jax.Array:
            return -log_sigmoid(0.1 * x).sum()

        far = jnp.float32([-1e4, 1e4])
        assert np.isfinite(loss(far))
        close(jax.grad(loss)(far), [-0.1, 0.0])

    check(jax.nn.log_sigmoid)
    check(lambda x: -dpo_loss(x / 0.1, 0 * x, 0 * x, 0 * x)[0] * x.size)
    breaks(check, lambda x: jnp.log(jax.nn.sigmoid(x)))


def test_the_odds_of_a_certain_response_are_finite() -> None:
    def check(log_odds: Callable) -> None:
        for a in (0.0, -1e-9, -1e-6, -1e-3, -0.5, -0.7, -5.0, -90.0, -1e4):
            value, slope = jax.value_and_grad(log_odds)(np.float32(a))
            assert np.isfinite(value), a
            assert np.isfinite(slope), a
            a = np.float64(np.float32(min(a, -1e-6)))
            close(value, a - np.log(-np.expm1(a)), rtol=2e-6)

    def ours(a: jax.Array) -> jax.Array:
        # Against log-odds of 0, e^a = 1/2.
        half = jnp.full(1, np.log(0.5), jnp.float32)
        ones = jnp.ones(1)
        # metrics have no gradient; the loss has, through the log-sigmoid
        loss, metrics = orpo_loss(jnp.stack([a]), half, ones, ones)
        rest = loss - jax.lax.stop_gradient(loss)
        return metrics["log_odds"][0] + rest

    check(ours)
    breaks(check, lambda a: a - jnp.log1p(-jnp.exp(a)))


def test_the_odds_keep_their_slope() -> None:
    """d/da log(p / (1 - p)) = 1 / (1 - p) on both sides of the two forms' border."""
    lam = 1e4  # the penalty alone counts

    def penalty(a: jax.Array) -> jax.Array:
        half, one = jnp.full(1, -0.5), jnp.ones(1)
        return orpo_loss(a[None], half, one, one, lam=lam)[0] / lam

    def exact(a: float) -> float:
        def odds(x: float) -> float:
            return x - np.log(-np.expm1(x))

        z = odds(a) - odds(-0.5)
        return -1 / (1 + np.exp(z)) / -np.expm1(a) - 1 / lam

    for a in (-1e-3, -0.1, -0.69, -0.70, -2.0, -8.0):
        close(jax.grad(penalty)(jnp.float32(a)), exact(a), rtol=1e-5)


@every_loss
def test_the_reference_is_a_constant(name: str) -> None:
    loss, arrays = EVERY[name]
    floats = [x for x in arrays if x.dtype == np.float32]
    rest = arrays[len(floats) :]
    places = tuple(range(len(floats)))

    def check(function: Callable) -> None:
        grads = jax.grad(lambda *x: function(*x, *rest)[0], argnums=places)(*floats)
        assert all((g != 0).any() for g in grads[:2])
        assert all((g == 0).all() for g in grads[2:])

    check(loss)
    if len(floats) == 4:
        # A reference inside the policy's arrays would have a gradient.
        zero = [0 * x for x in BATCH[:2]]
        breaks(
            check,
            lambda w, l, rw, rl, *n: loss(w - rw, l - rl, *zero, *n),  # noqa: E741
        )


def test_trl_and_openrlhf_mean_different_things_by_ipo() -> None:
    sums, means = ipo_loss(*PAIR)[0], ipo_loss(*AVERAGES)[0]
    close(sums, EXAMPLES["dpo.ipo_sum"])
    close(means, EXAMPLES["dpo.ipo_avg"])


def test_an_average_of_no_tokens() -> None:
    for loss in (simpo_loss, orpo_loss):
        found = loss(*BATCH[:2], np.zeros(6, int), SIZES[1])[0]
        assert np.isfinite(found)


@pytest.mark.parametrize("count", [4, np.int32(4), jnp.float32(4)])
def test_any_number_will_do_for_a_count(count: Any) -> None:
    close(dpo_loss(*BATCH, num_pairs=count)[0], dpo_loss(*BATCH)[0] * 6 / 4)


def test_settings_may_be_traced() -> None:
    found = jax.jit(lambda b: dpo_loss(*BATCH, beta=b)[0])(0.3)
    close(found, dpo_loss(*BATCH, beta=0.3)[0])


@pytest.mark.parametrize(
    ("loss", "change", "message"),
    [
        (dpo_loss, {"beta": 0.0}, "beta must be finite and > 0, got 0.0"),
        (dpo_loss, {"label_smoothing": 0.5}, r"in \[0, 0.5\), got 0.5"),
        (robust_dpo_loss, {"label_smoothing": 0.5}, r"in \[0, 0.5\), got 0.5"),
        (ipo_loss, {"beta": -1.0}, "beta must be"),
        (dpo_loss, {"ref_chosen": BATCH[0][:3]}, r"ref_chosen \[3\]"),
        (dpo_loss, {"policy_chosen": np.ones((6, 2))}, "1 axes"),
        (dpo_loss, {"policy_chosen": SIZES[0]}, "must be a floating array"),
        (dpo_loss, {"valid": np.ones(3), "num_pairs": 3}, r"valid \[3\]"),
        (dpo_loss, {"num_pairs": -1}, "num_pairs must be finite and >= 0, got -1"),
        (dpo_loss, {"num_pairs": jnp.ones(2)}, "num_pairs must be"),
    ],
)
def test_refusals(loss: Callable, change: dict[str, Any], message: str) -> None:
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    given = {**dict(zip(names, BATCH, strict=True)), **change}
    arrays = [given.pop(name) for name in names]
    with pytest.raises(ValueError, match=message):
        loss(*arrays, **given)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("simpo", {"gamma": -1.0}, "gamma must be finite and >= 0"),
        ("orpo", {"lam": -0.1}, "lam must be finite and >= 0"),
        ("irpo", {"alpha": -0.1}, "alpha must be finite and >= 0"),
    ],
)
def test_refusals_of_settings(name: str, change: dict[str, Any], message: str) -> None:
    loss, arrays = EVERY[name]
    with pytest.raises(ValueError, match=message):
        loss(*arrays, **change)
    with pytest.raises(ValueError, match="chosen_lengths"):
        loss(*arrays[: len(BATCH if name == "irpo" else BATCH[:2])], *shortened(arrays))


def shortened(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The lengths, too few."""
    return [x[:2] for x in arrays if x.dtype != np.float32]
