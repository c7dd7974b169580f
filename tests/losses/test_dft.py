"""Dynamic fine-tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import batch_counts, dft, nll, sequence_mean, token_mean
from tests.losses.worked import EXAMPLES, MASK, NEW, close

COUNTS = batch_counts(MASK)
slope = jax.jit(jax.value_and_grad(lambda x, m: dft(x, m).sum()))


def test_worked_numbers() -> None:
    close(token_mean(dft(NEW, MASK), MASK, COUNTS), EXAMPLES["dft.loss"])
    close(token_mean(nll(NEW, MASK), MASK, COUNTS), EXAMPLES["sft.nll"])
    close(sequence_mean(nll(NEW, MASK), MASK, COUNTS), EXAMPLES["sft.seq"])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_value_and_gradient(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = -rng.exponential(2.0, (4, 4)).astype(np.float32)
    mask = rng.random((4, 4)) < 0.7
    exact = np.where(mask, x.astype(np.float64), 0)
    value, grad = slope(x, mask)
    close(value, np.sum(-np.exp(exact) * exact))
    # The weight is a constant: with its own gradient it would be -pi (1 + log pi).
    close(grad, np.where(mask, -np.exp(exact), 0))


def test_the_weight_is_a_constant() -> None:
    def check(loss: object) -> None:
        grad = jax.grad(lambda x: loss(x, MASK).sum())(NEW)  # type: ignore[operator]
        close(grad, -MASK * np.exp(NEW))

    check(dft)
    with pytest.raises(AssertionError):
        check(lambda x, m: jnp.where(m, -jnp.exp(x) * x, 0.0))


def test_garbage_extremes_and_types() -> None:
    dirty = np.where(MASK, NEW, np.nan).astype(np.float32)
    value, grad = slope(dirty, MASK)
    clean = slope(np.where(MASK, NEW, 0).astype(np.float32), MASK)
    close(value, clean[0])
    close(grad, clean[1])
    for size in (100.0, 1e4, -100.0, -1e4):
        value, grad = slope(np.full((4, 4), size, np.float32), MASK)
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
    assert dft(jnp.asarray(NEW, jnp.bfloat16), MASK).dtype == jnp.float32
    twice = jax.vmap(dft)(np.stack([NEW, NEW]), np.stack([MASK, MASK]))
    close(twice[0], dft(NEW, MASK))


def test_micro_batches_add_up() -> None:
    parts = [
        token_mean(dft(NEW[p], MASK[p]), MASK[p], COUNTS)
        for p in (slice(0, 1), slice(1, 4))
    ]
    close(sum(parts), EXAMPLES["dft.loss"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"mask \[4, 2\]"):
        dft(NEW, MASK[:, :2])
    with pytest.raises(ValueError, match="logprobs must be a floating array"):
        dft(MASK, MASK)
