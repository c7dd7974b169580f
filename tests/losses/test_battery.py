"""What holds for every loss of the library, whatever it computes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import Counts, batch_counts, clipped_surrogate, token_mean
from tests.losses import reference
from tests.losses.battery import (
    FLOATS,
    NUM_GROUPS,
    Batch,
    Case,
    counts_of,
    random_batch,
    take,
    value_and_grad,
    with_garbage,
)
from tests.losses.every_loss import LOSSES
from tests.losses.worked import close

every_loss = pytest.mark.parametrize("case", LOSSES, ids=str)
GARBAGE = (np.nan, 1e6, -1e6, np.inf, -np.inf)


def run(case: Case, b: Batch) -> tuple[np.ndarray, np.ndarray]:
    value, grad = value_and_grad(case, b, counts_of(b))
    return np.asarray(value), np.asarray(grad)


@every_loss
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_value_and_gradient_are_the_references(case: Case, seed: int) -> None:
    b = random_batch(seed)
    exact = Batch(*(np.asarray(f, np.float64) for f in b))
    value, grad = run(case, b)
    close(value, case.reference(exact.x, exact))
    slope = reference.numerical_gradient(lambda x: case.reference(x, exact), exact.x)
    close(grad, slope, rtol=1e-5)


@every_loss
def test_shares_of_micro_batches_add_up(case: Case) -> None:
    b = random_batch(1)
    counts = counts_of(b)
    parts = [
        value_and_grad(case, take(b, slice(i, i + 2)), counts) for i in (0, 2, 4, 6)
    ]
    value, grad = run(case, b)
    close(sum(float(v) for v, _ in parts), value)
    close(np.concatenate([g for _, g in parts]), grad)


@every_loss
def test_padding_changes_nothing(case: Case) -> None:
    b = random_batch(2)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 4), (0, 3)][: x.ndim])

    wide = Batch(*(padded(f) for f in b))
    wide = with_garbage(wide, GARBAGE)
    value, grad = run(case, b)
    wide_value, wide_grad = run(case, wide)
    close(wide_value, value)
    close(wide_grad, padded(grad))


@every_loss
def test_order_of_rows_and_names_of_groups_do_not_matter(case: Case) -> None:
    b = random_batch(3)
    rng = np.random.default_rng(0)
    order, names = rng.permutation(8), rng.permutation(NUM_GROUPS).astype(np.int32)
    mixed = take(b, order)
    mixed = mixed._replace(group_ids=names[mixed.group_ids])
    value, grad = run(case, b)
    mixed_value, mixed_grad = run(case, mixed)
    close(mixed_value, value)
    close(mixed_grad, grad[order])


@every_loss
def test_garbage_under_the_mask_is_not_seen(case: Case) -> None:
    b = random_batch(4)
    value, grad = run(case, b)
    dirty_value, dirty_grad = run(case, with_garbage(b, GARBAGE))
    np.testing.assert_array_equal(dirty_value, value)
    np.testing.assert_array_equal(dirty_grad, grad)
    assert (grad[~b.mask] == 0).all()


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extreme_log_ratios_stay_finite(case: Case, size: float) -> None:
    b = random_batch(5)
    sign = np.where(np.arange(b.x.size).reshape(b.x.shape) % 2, 1.0, -1.0)
    far = (b.x + size * sign).astype(np.float32)
    value, grad = run(case, b._replace(old=far, ref=far))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


@every_loss
def test_bfloat16_is_computed_in_float32(case: Case) -> None:
    b = random_batch(6)
    coarse = {name: jnp.asarray(getattr(b, name), jnp.bfloat16) for name in FLOATS}
    exact = {name: np.asarray(x, np.float32) for name, x in coarse.items()}
    value, grad = value_and_grad(case, b._replace(**coarse), counts_of(b))
    expected, slope = run(case, b._replace(**exact))
    assert value.dtype == jnp.float32
    assert grad.dtype == jnp.bfloat16
    close(value, expected)
    close(grad, slope.astype(jnp.bfloat16), rtol=1e-2)


@every_loss
def test_vmap_changes_nothing(case: Case) -> None:
    several = [random_batch(7), random_batch(8)]
    counts = [counts_of(b) for b in several]

    def stack(*xs: np.ndarray) -> np.ndarray:
        return np.stack(xs)

    together = jax.vmap(partial(value_and_grad, case))(
        jax.tree.map(stack, *several), jax.tree.map(stack, *counts)
    )
    apart = [run(case, b) for b in several]
    close(together[0], np.stack([v for v, _ in apart]))
    close(together[1], np.stack([g for _, g in apart]))


@every_loss
def test_empty_mask_gives_zero(case: Case) -> None:
    b = random_batch(9)
    b = with_garbage(b._replace(mask=np.zeros_like(b.mask)), GARBAGE)
    value, grad = run(case, b)
    assert value == 0
    assert (grad == 0).all()


@every_loss
def test_only_the_policy_has_a_gradient(case: Case) -> None:
    b = random_batch(10)
    counts = counts_of(b)

    def loss(floats: dict[str, jax.Array]) -> jax.Array:
        return case.loss(floats["x"], b._replace(**floats), counts)

    grads = jax.jit(jax.grad(loss))(
        {name: jnp.asarray(getattr(b, name)) for name in FLOATS}
    )
    moving = {name for name, g in grads.items() if np.any(np.asarray(g) != 0)}
    assert moving == {"x", *case.differentiable}


@every_loss
def test_masks_of_numbers_are_masks_of_flags(case: Case) -> None:
    b = random_batch(11)
    numbers = run(case, b._replace(mask=b.mask.astype(np.float32)))
    for found, expected in zip(numbers, run(case, b), strict=True):
        close(found, expected)


@every_loss
def test_49_a_nan_inside_the_mask_shows(case: Case) -> None:
    b = random_batch(12)
    value, _ = run(case, b._replace(x=np.where(b.mask, np.nan, b.x)))
    assert np.isnan(value)


# The battery itself: it must find a loss that is wrong in these ways.


def tokens_of(x: jax.Array, b: Batch) -> jax.Array:
    return clipped_surrogate(x, b.old, b.advantages, b.mask)


def counts_for_itself(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    return token_mean(tokens_of(x, b), b.mask, batch_counts(b.mask))


def divides_twice(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    return token_mean(tokens_of(x, b), b.mask, counts) / len(x)


def counts_masked_rows(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    rows = jnp.maximum(counts.tokens, 1) + (~jnp.any(b.mask, axis=1)).sum()
    return tokens_of(x, b).sum() / rows


def looks_at_the_order(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    weights = jnp.arange(1.0, len(x) + 1)[:, None]
    return token_mean(tokens_of(x, b) * weights, b.mask, counts)


def maximum_that_hides_nan(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    ratio = jnp.exp(jnp.where(b.mask, x - b.old, 0.0))
    a = jnp.where(b.mask, b.advantages, 0.0)
    tokens = jnp.fmax(-a * ratio, -a * jnp.clip(ratio, 0.8, 1.2))
    return token_mean(jnp.where(b.mask, jnp.fmax(tokens, -9.0), 0.0), b.mask, counts)


@pytest.mark.parametrize(
    ("mutant", "found_by"),
    [
        (counts_for_itself, test_shares_of_micro_batches_add_up),
        (divides_twice, test_padding_changes_nothing),
        (counts_masked_rows, test_padding_changes_nothing),
        (looks_at_the_order, test_order_of_rows_and_names_of_groups_do_not_matter),
        (maximum_that_hides_nan, test_49_a_nan_inside_the_mask_shows),
    ],
    ids=lambda function: function.__name__,
)
def test_2_the_battery_finds(mutant: Callable, found_by: Callable) -> None:
    with pytest.raises(AssertionError):
        found_by(Case("mutant", mutant, lambda x, b: 0.0))


def test_the_battery_has_batches_worth_testing() -> None:
    b = random_batch(1)
    counts = batch_counts(b.mask, b.group_ids, num_groups=NUM_GROUPS)
    assert int(counts.sequences) < 8
    assert len({int(n) for n in np.bincount(b.group_ids)}) > 1
    ratio = np.exp(b.x - b.old)[b.mask]
    assert (ratio > 1.28).any()
    assert (ratio < 0.8).any()
