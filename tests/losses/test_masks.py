"""Tokens of high entropy and sequences that are not too far off policy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    dapo_loss,
    high_entropy_mask,
    off_policy_sequence_mask,
)
from tests.losses import reference_objectives as own
from tests.losses.battery import random_batch
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, close

jitted = jax.jit(high_entropy_mask)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
def test_the_tokens_of_highest_entropy(fraction: float) -> None:
    for seed in range(4):
        b = random_batch(seed)
        found = np.asarray(jitted(b.entropy, b.mask, fraction=fraction))
        np.testing.assert_array_equal(found, own.top(b.entropy, b.mask, fraction))


def test_never_more_than_the_number_are_chosen() -> None:
    entropy, mask = np.ones((2, 5), np.float32), np.ones((2, 5))

    def check(choose: Callable) -> None:
        assert np.flatnonzero(choose(entropy, mask)).tolist() == [0, 1]

    check(high_entropy_mask)
    with pytest.raises(AssertionError):  # at or above a quantile: all of them
        check(lambda x, m: x >= jnp.quantile(x, 0.8))


def test_whole_products_are_not_rounded_down() -> None:
    for fraction, tokens, number in ((0.7, 10, 7), (0.29, 100, 29), (0.1, 1000, 100)):
        x = np.arange(tokens, dtype=np.float32)[None]
        found = jax.jit(high_entropy_mask)(x, np.ones_like(x), fraction=fraction)
        assert int(np.sum(found)) == number


def test_an_empty_mask_chooses_nothing() -> None:
    assert not np.any(jitted(np.full((8, 6), np.nan), np.zeros((8, 6)), fraction=0.2))


def test_padding_and_garbage_choose_alike() -> None:
    b = random_batch(1)
    pad = [(0, 2), (0, 3)]
    mask = np.pad(b.mask, pad)
    entropy = np.where(mask, np.pad(b.entropy, pad), np.nan)
    found = np.asarray(high_entropy_mask(entropy, mask))
    np.testing.assert_array_equal(found[:8, :6], high_entropy_mask(b.entropy, b.mask))
    assert not found[8:].any()
    assert not found[:, 6:].any()


def test_as_weights_the_denominator_stays() -> None:
    chosen = high_entropy_mask(-NEW, MASK, fraction=0.5)
    grad_of = jax.grad(lambda x, *rest, **kw: dapo_loss(x, *rest, **kw)[0])
    counts, start = batch_counts(MASK), OLD.astype(np.float32)
    whole = np.asarray(grad_of(start, OLD, ADVANTAGES, MASK, counts))

    def check(grad: Any) -> None:
        close(grad, np.where(chosen, whole, 0))

    check(grad_of(start, OLD, ADVANTAGES, MASK, counts, weights=chosen))
    with pytest.raises(AssertionError):  # chosen as the mask, it would be smaller
        check(grad_of(start, OLD, ADVANTAGES, chosen, batch_counts(chosen)))


def test_worked_sequences_to_accepted() -> None:
    accepted = off_policy_sequence_mask(NEW, OLD, ADVANTAGES, MASK, delta=0.2)
    assert np.asarray(accepted).tolist() == [bool(k) for k in EXAMPLES["opsm.keep"]]
    away = np.array(EXAMPLES["opsm.kl"])
    for delta in (0.0, 0.22, 0.23):
        found = off_policy_sequence_mask(NEW, OLD, -np.ones(4), MASK, delta=delta)
        assert np.asarray(found).tolist() == (away <= delta).tolist()


def test_good_sequences_and_masked_rows_are_kept() -> None:
    far = np.full((3, 2), -50.0)
    a = np.array([[1.0, 1.0], [-1.0, -1.0], [np.nan, np.nan]])
    mask = np.array([[1, 1], [1, 0], [0, 0]])
    accepted = off_policy_sequence_mask(far, 0 * far, a, mask, delta=1.0)
    assert np.asarray(accepted).tolist() == [True, False, True]


def test_they_are_constants() -> None:
    def total(x: jax.Array) -> jax.Array:
        accepted = off_policy_sequence_mask(x, OLD, ADVANTAGES, MASK, delta=0.2)
        return jnp.sum(accepted * 1.0) + jnp.sum(high_entropy_mask(x, MASK) * 1.0)

    assert (np.asarray(jax.grad(total)(NEW.astype(np.float32))) == 0).all()


@pytest.mark.parametrize("fraction", [0.0, 1.5, np.nan, None])
def test_refusals_of_the_fraction(fraction: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}"
    ):
        high_entropy_mask(NEW, MASK, fraction=fraction)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"entropy \[4, 4\], mask \[3, 4\]"):
        high_entropy_mask(NEW, MASK[:3])
    with pytest.raises(ValueError, match="delta must be finite and >= 0, got -1"):
        off_policy_sequence_mask(NEW, OLD, ADVANTAGES, MASK, delta=-1)
    with pytest.raises(ValueError, match=r"old_logprobs \[2, 4\]"):
        off_policy_sequence_mask(NEW, OLD[:2], ADVANTAGES, MASK, delta=1)
