"""Log-probs of responses and the number of pairs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    average_logprobs,
    count_pairs,
    dpo_loss,
    sequence_logprobs,
)
from tests.losses.worked import MASK, NEW, close

BOTH = pytest.mark.parametrize("function", [sequence_logprobs, average_logprobs])


def test_sums_and_means() -> None:
    sums = [(NEW[i] * MASK[i]).sum() for i in range(4)]
    close(sequence_logprobs(NEW, MASK), sums)
    close(average_logprobs(NEW, MASK), sums / MASK.sum(1))


@BOTH
def test_what_is_masked_is_not_seen(function: Callable) -> None:
    dirty = np.where(MASK, NEW, np.nan).astype(np.float32)
    mask = np.concatenate([MASK, np.zeros((1, 4), int)])
    dirty = np.concatenate([dirty, np.full((1, 4), np.inf, np.float32)])

    def total(x: jax.Array) -> jax.Array:
        return jnp.sum(function(x, mask))

    value, grad = jax.jit(jax.value_and_grad(total))(dirty)
    close(value, float(np.sum(function(NEW, MASK))))
    weights = 1.0 if function is sequence_logprobs else 1 / MASK.sum(1, keepdims=True)
    close(grad[:4], MASK * weights)
    assert (grad[4] == 0).all()
    assert function(dirty, mask)[4] == 0


@BOTH
def test_bfloat16_and_vmap(function: Callable) -> None:
    found = function(jnp.asarray(NEW, jnp.bfloat16), MASK)
    assert found.dtype == jnp.float32
    close(found, function(NEW, MASK), rtol=1e-2)
    twice = jax.vmap(function)(np.stack([NEW, NEW]), np.stack([MASK, MASK]))
    close(twice[1], function(NEW, MASK))


def test_the_end_token_belongs_to_the_sum() -> None:
    """A response that is right up to its end differs by the end alone."""
    logprobs = np.array([[-0.5, -0.5, -3.0], [-0.5, -0.5, -0.1]])
    ends, truncated = np.ones((2, 3)), np.array([[1, 1, 0], [1, 1, 0]])
    chosen, rejected = sequence_logprobs(logprobs, ends)[:, None]
    assert float(dpo_loss(chosen, rejected, 0 * chosen, 0 * chosen)[0]) > np.log(2)
    assert len(set(sequence_logprobs(logprobs, truncated).tolist())) == 1


def test_pairs_are_counted() -> None:
    assert int(count_pairs(np.array([1.0, 0.0, 1.0]))) == 2
    assert count_pairs(np.array([True])).dtype == jnp.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sequence_logprobs(NEW, MASK[:, :2]), r"mask \[4, 2\]"),
        (lambda: average_logprobs(NEW[0], MASK[0]), "2 axes"),
        (lambda: sequence_logprobs(MASK, MASK), "logprobs must be a floating array"),
        (lambda: count_pairs(MASK), "valid must have 1 axes"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
