"""Weights between sampler and trainer: values, constants, bounds, denominators."""

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
    dr_grpo_loss,
    grpo_loss,
    importance_weights,
    masked_importance_weights,
    normalize_weights,
    ppo_loss,
    rejection_mask,
    sequence_mean,
    token_mean,
)
from tests.losses import reference_rollout as ref
from tests.losses.battery import random_batch
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, SAMPLER, close

GARBAGE = (np.nan, 1e6, -1e6, np.inf)
UNMASKED = MASK > 0
WEIGHTS = {
    "token": partial(importance_weights, cap=1.5),
    "sequence": partial(importance_weights, kind="sequence"),
    "token, masked": partial(masked_importance_weights, low=0.7, high=1.5),
    "sequence, masked": partial(
        masked_importance_weights, kind="sequence", low=0.5, high=2.0
    ),
}
REFERENCES = {
    "token": partial(ref.truncated, cap=1.5),
    "sequence": partial(ref.truncated, kind="sequence"),
    "token, masked": partial(ref.masked, low=0.7, high=1.5, kind="token"),
    "sequence, masked": partial(ref.masked, low=0.5, high=2.0, kind="sequence"),
}
COMPILED = {name: jax.jit(f) for name, f in WEIGHTS.items()}
every_kind = pytest.mark.parametrize("name", WEIGHTS)


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def by_row(weights: jax.Array) -> np.ndarray:
    """[B], of weights that are the same for a row's unmasked tokens."""
    weights = np.asarray(weights)
    np.testing.assert_array_equal(weights, weights[:, :1] * UNMASKED)
    return weights[:, 0]


def test_worked_weights() -> None:
    arrays = OLD, SAMPLER, MASK
    close(importance_weights(*arrays, cap=np.inf), EXAMPLES["tis.rho"])
    close(importance_weights(*arrays), EXAMPLES["tis.token"])
    product = importance_weights(*arrays, kind="sequence", cap=np.inf)
    close(by_row(product), EXAMPLES["tis.seq"])
    truncated = importance_weights(*arrays, kind="sequence")
    close(by_row(truncated), EXAMPLES["tis.seq_tr"])
    band = {"low": 0.5, "high": 2.0}
    close(masked_importance_weights(*arrays, **band), EXAMPLES["mis.token"])
    rows = masked_importance_weights(*arrays, kind="sequence", **band)
    close(by_row(rows), EXAMPLES["mis.seq"])


def test_worked_losses() -> None:
    def loss(old: np.ndarray, weights: jax.Array | None) -> float:
        counts = batch_counts(MASK)
        return ppo_loss(NEW, old, ADVANTAGES, MASK, counts, weights=weights)[0]

    close(loss(OLD, importance_weights(OLD, SAMPLER, MASK)), EXAMPLES["tis.loss"])
    icepop = masked_importance_weights(OLD, SAMPLER, MASK, low=0.5, high=2.0)
    close(loss(OLD, icepop), EXAMPLES["icepop.loss"])
    # Bypass: the ratio holds u already, and no weight is put on top of it.
    close(loss(SAMPLER, None), EXAMPLES["bypass.loss"])


@pytest.mark.parametrize("name", ["geometric", "sequence", "k3"])
def test_worked_rejection(name: str) -> None:
    expected = {
        "geometric": EXAMPLES["tis.geo"],
        "sequence": EXAMPLES["tis.seq"],
        "k3": [
            (0.1051709180756477 - 0.1 + 1.4596031111569494 - 0.9) / 4,
            (0.951229424500714 - 1 + 0.05) / 2,
            0.0,
            0.36787944117144233 - 1 + 1,
        ],
    }[name]
    # A bound just below each row's statistic rejects it, one just above keeps it.
    for row, value in enumerate(expected):
        for factor, kept in ((0.999, value == 0), (1.001, True)):
            band = {"high": value * factor, "low": 0.0, "kind": name}
            if name == "k3":
                band |= {"kind": "geometric", "estimator": "k3", "low": None}
            accepted = rejection_mask(OLD, SAMPLER, MASK, **band)
            assert bool(accepted[row]) is kept
            if name != "k3" and factor < 1:
                low = {"low": value * factor, "high": 1e9}
                assert rejection_mask(OLD, SAMPLER, MASK, kind=name, **low)[row]
                low = {"low": value * 1.001, "high": 1e9}
                assert not rejection_mask(OLD, SAMPLER, MASK, kind=name, **low)[row]


@every_kind
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_are_the_references(name: str, seed: int) -> None:
    b = random_batch(seed)
    close(COMPILED[name](b.old, b.ref, b.mask), REFERENCES[name](b.old, b.ref, b.mask))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_rejection_is_the_references(seed: int) -> None:
    b = random_batch(seed)
    arrays = b.old, b.ref, b.mask
    for kind, high in (("geometric", 1.2), ("sequence", 1.6), ("k3", 0.1)):
        value = ref.row_statistic(kind, *arrays)
        low = None if kind == "k3" else 0.8
        how = {"estimator": "k3"} if kind == "k3" else {"kind": kind}
        accepted = rejection_mask(*arrays, **how, low=low, high=high)
        expected = (value <= high) & (value >= (low or 0.0))
        np.testing.assert_array_equal(accepted, expected | ~b.mask.any(1))


@pytest.mark.parametrize("estimator", ["k2", "k3"])
@pytest.mark.parametrize("kind", ["token", "geometric", "sequence", "worst"])
def test_rejection_by_estimates_of_the_divergence(kind: str, estimator: str) -> None:
    """verl's token, seq_mean, seq_sum and seq_max of k2 and k3."""
    b = random_batch(3)
    log_u = np.where(b.mask, np.asarray(b.old, np.float64) - b.ref, 0.0)
    tokens = {"k2": log_u**2 / 2, "k3": np.expm1(log_u) - log_u}[estimator]
    values = {
        "token": tokens,
        "geometric": tokens.sum(1) / np.maximum(b.mask.sum(1), 1),
        "sequence": tokens.sum(1),
        "worst": tokens.max(1),
    }[kind]
    high = float(np.median(values[values > 0])) * 1.001  # not a value itself
    how = {"kind": kind, "estimator": estimator, "high": high}
    accepted = rejection_mask(b.old, b.ref, b.mask, **how)
    expected = (values <= high) & (b.mask if kind == "token" else True)
    np.testing.assert_array_equal(accepted, expected)
    assert 0 < expected.sum() < expected.size


@every_kind
def test_garbage_under_the_mask_is_not_seen(name: str) -> None:
    b = random_batch(4)
    dirty = [np.where(b.mask, x, np.resize(GARBAGE, x.shape)) for x in (b.old, b.ref)]
    clean = COMPILED[name](b.old, b.ref, b.mask)
    np.testing.assert_array_equal(COMPILED[name](*dirty, b.mask), clean)
    assert (np.asarray(clean)[~b.mask] == 0).all()
    accepted = rejection_mask(*dirty, b.mask, low=0.9, high=1.1)
    expected = rejection_mask(b.old, b.ref, b.mask, low=0.9, high=1.1)
    np.testing.assert_array_equal(accepted, expected)
    assert not expected.all()


@every_kind
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_log_ratios_stay_finite(name: str, size: float) -> None:
    b = random_batch(5)
    for far in (b.old + size, b.old - size):
        assert np.isfinite(COMPILED[name](b.old, far.astype(np.float32), b.mask)).all()


def test_a_nan_inside_the_mask_shows() -> None:
    bad = SAMPLER.copy()
    bad[0, 0] = np.nan
    for weights in WEIGHTS.values():
        assert np.isnan(np.asarray(weights(OLD, bad, MASK))[0, 0])
    assert rejection_mask(OLD, bad, MASK, low=0.99, high=1.01)[0]


@every_kind
def test_agreement_changes_nothing(name: str) -> None:
    np.testing.assert_array_equal(WEIGHTS[name](OLD, OLD, MASK), UNMASKED)
    for kind in ("geometric", "sequence"):
        assert rejection_mask(OLD, OLD, MASK, kind=kind, low=1.0, high=1.0).all()
    assert rejection_mask(OLD, OLD, MASK, estimator="k3", high=0.0).all()


def test_rows_without_tokens_are_kept_and_weigh_nothing() -> None:
    none = np.zeros_like(MASK)
    assert not importance_weights(OLD, SAMPLER, none, kind="sequence").any()
    assert rejection_mask(OLD, SAMPLER, none, low=1.5, high=2.0).all()


def test_16_weights_are_constants() -> None:
    def check(weights: Callable) -> None:
        def total(old: jax.Array, sampler: jax.Array) -> jax.Array:
            return weights(old, sampler, MASK).sum()

        slopes = jax.grad(total, (0, 1))(jnp.asarray(OLD), jnp.asarray(SAMPLER))
        assert not np.any(slopes[0])
        assert not np.any(slopes[1])

    for weights in WEIGHTS.values():
        check(weights)
    check(lambda old, x, m: normalize_weights(old - x, m, mean=2.0))

    def without(old: jax.Array, sampler: jax.Array, mask: np.ndarray) -> jax.Array:
        return jnp.where(mask > 0, jnp.minimum(jnp.exp(old - sampler), 2.0), 0.0)

    breaks(check, without)


def test_17_the_exponent_is_selected_and_bounded() -> None:
    sampler = np.where(UNMASKED, SAMPLER, np.nan)
    sampler[0, 0] = -1e4

    def check(weights: Callable) -> None:
        assert np.isfinite(weights(OLD, sampler, MASK)).all()

    check(partial(importance_weights, cap=np.inf))
    breaks(check, lambda old, x, m: jnp.exp(old - x) * m)


def test_48_a_row_stays_a_row_where_t_equals_b() -> None:
    def check(weights: Callable) -> None:
        by_row(weights(OLD, SAMPLER, MASK))

    check(partial(importance_weights, kind="sequence"))

    def broadcast(old: np.ndarray, sampler: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.minimum(np.exp(((old - sampler) * mask).sum(1)), 2.0) * mask

    breaks(check, broadcast)


def test_verls_bounds_of_k1_are_those_of_the_inverse() -> None:
    # u = 3: the trainer gives the token three times the probability of the sampler.
    log_u = np.log([[3.0], [1.9], [0.4], [0.15]])
    old, mask = np.full((4, 1), -2.0), np.ones((4, 1))
    accepted = partial(rejection_mask, old, old - log_u, mask)
    assert accepted(low=0.5, high=5.0).tolist() == [True, True, False, False]

    def check(rule: Callable) -> None:
        # "0.5_5.0" of verl's rollout_rs_threshold.
        verl = [0.5 <= 1 / u <= 5.0 for u in np.exp(log_u[:, 0])]
        assert rule(0.5, 5.0).tolist() == verl == [False, True, True, False]

    check(lambda low, high: accepted(low=1 / high, high=1 / low))
    breaks(check, lambda low, high: accepted(low=low, high=high))
    # Bounds that are each other's inverse hide it.
    assert accepted(low=0.5, high=2.0).tolist() == [False, True, False, False]
    assert [0.5 <= 1 / u <= 2 for u in np.exp(log_u[:, 0])] == [
        False,
        True,
        False,
        False,
    ]


def test_3_rejected_rows_and_the_denominator() -> None:
    accepted = rejection_mask(OLD, SAMPLER, MASK, low=0.5, high=2.0)
    assert accepted.tolist() == [True, True, True, False]
    arrays = NEW, OLD, ADVANTAGES

    def check(loss: Callable) -> None:
        rest = MASK[:3]
        counts = batch_counts(rest)
        expected = grpo_loss(*(x[:3] for x in arrays), rest, counts)[0]
        close(loss(), expected)

    def out() -> jax.Array:
        mask = MASK & np.asarray(accepted)[:, None]
        return grpo_loss(*arrays, mask, batch_counts(mask))[0]

    def inside() -> jax.Array:
        return grpo_loss(*arrays, MASK, batch_counts(MASK), weights=accepted)[0]

    check(out)
    breaks(check, inside)
    # The other choice: four rows in the denominator, three in the sum.
    close(inside(), out() * 3 / 4)


def test_1_the_mean_of_the_weights_is_that_of_the_mini_batch() -> None:
    weights = importance_weights(OLD, SAMPLER, MASK)
    counts = batch_counts(MASK)
    parts = [slice(0, 1), slice(1, 4)]
    mean = sum(token_mean(weights[p], MASK[p], counts) for p in parts)
    close(mean, EXAMPLES["tis.bn"])
    close(normalize_weights(weights, MASK, mean=mean)[UNMASKED].mean(), 1.0)

    def loss(part: slice, w: jax.Array) -> jax.Array:
        arrays = NEW[part], OLD[part], ADVANTAGES[part], MASK[part]
        return dr_grpo_loss(*arrays, counts, length=8, weights=w)[0]

    def check(normalize: Callable) -> None:
        addends = [loss(p, normalize(weights[p], MASK[p])) for p in parts]
        whole = slice(None)
        close(sum(addends), loss(whole, normalize_weights(weights, MASK, mean=mean)))

    check(partial(normalize_weights, mean=mean))

    def local(w: jax.Array, m: np.ndarray) -> jax.Array:
        return normalize_weights(w, m, mean=token_mean(w, m, batch_counts(m)))

    breaks(check, local)


def test_sequence_weights_have_a_mean_over_sequences() -> None:
    weights = importance_weights(OLD, SAMPLER, MASK, kind="sequence")
    mean = sequence_mean(weights, MASK, batch_counts(MASK))
    close(mean, np.mean(EXAMPLES["tis.seq_tr"]))
    close(by_row(normalize_weights(weights, MASK, mean=mean)).mean(), 1.0)


def test_weights_of_nothing_normalize_to_nothing() -> None:
    zeros = jnp.zeros(MASK.shape)
    assert not normalize_weights(zeros, MASK, mean=0.0).any()
    dirty = np.where(UNMASKED, 1.0, np.nan)
    np.testing.assert_array_equal(normalize_weights(dirty, MASK, mean=1.0), UNMASKED)


def test_bfloat16_vmap_and_traced_settings() -> None:
    coarse = [jnp.asarray(x, jnp.bfloat16) for x in (OLD, SAMPLER)]
    exact = [np.asarray(x, np.float32) for x in coarse]
    found = importance_weights(*coarse, MASK)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, importance_weights(*exact, MASK))
    several = [np.stack([x, x[::-1]]) for x in (OLD, SAMPLER, MASK)]
    apart = importance_weights(OLD[::-1], SAMPLER[::-1], MASK[::-1])
    np.testing.assert_array_equal(jax.vmap(importance_weights)(*several)[1], apart)

    @jax.jit
    def scheduled(cap: float) -> jax.Array:
        band = {"low": 1 / cap, "high": cap}
        accepted = rejection_mask(OLD, SAMPLER, MASK, **band)
        weights = importance_weights(OLD, SAMPLER, MASK, cap=cap)
        kept = masked_importance_weights(OLD, SAMPLER, MASK, **band)
        return weights * accepted[:, None], kept

    found = scheduled(2.0)
    close(found[0], np.array(EXAMPLES["tis.token"]) * [[1], [1], [1], [0]])
    close(found[1], EXAMPLES["mis.token"])


ARRAYS = OLD, SAMPLER, MASK


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: importance_weights(*ARRAYS, cap=0.0), "cap must be > 0, got 0.0"),
        (
            lambda: importance_weights(*ARRAYS, kind="row"),
            "kind must be one of token, sequence, geometric, max, got 'row'",
        ),
        (lambda: importance_weights(OLD, SAMPLER[:2], MASK), "one shape"),
        (lambda: importance_weights(MASK, SAMPLER, MASK), "old_logprobs must be a fl"),
        (
            lambda: masked_importance_weights(*ARRAYS, low=2.0, high=0.5),
            "high must be finite and >= low = 2, got 0.5",
        ),
        (
            lambda: masked_importance_weights(*ARRAYS, low=-0.7, high=0.7),
            "low must be finite and >= 0, got -0.7",
        ),
        (
            lambda: rejection_mask(*ARRAYS, high=1.1),
            "low must be a number with kind 'geometric', got None",
        ),
        (
            lambda: rejection_mask(*ARRAYS, estimator="k3", low=0.1, high=1.1),
            "low must be None with the estimator 'k3', got 0.1",
        ),
        (
            lambda: rejection_mask(*ARRAYS, estimator="k3", high=-1.0),
            "high must be finite and >= 0, got -1.0",
        ),
        (lambda: rejection_mask(*ARRAYS, kind="k1", high=1.0), "kind must be one of"),
        (
            lambda: rejection_mask(*ARRAYS, estimator="geometric", high=1.0),
            "estimator must be one of k1, k2, k3, got 'geometric'",
        ),
        (
            lambda: normalize_weights(OLD, MASK, mean=-1.0),
            "mean must be finite and >= 0, got -1.0",
        ),
        (lambda: normalize_weights(OLD[0], MASK, mean=1.0), "one shape"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
