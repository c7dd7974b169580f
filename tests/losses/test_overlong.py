"""DAPO's overlong penalty and overlong filter."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    batch_counts,
    overlong_mask,
    sequence_mean,
    soft_overlong_penalty,
    token_mean,
)
from tests.losses.worked import EXAMPLES, MASK, VALUES, close


def penalty(lengths: object) -> np.ndarray:
    return np.asarray(
        soft_overlong_penalty(lengths, max_length=20480, cache_length=4096)
    )


@pytest.mark.parametrize("length", [16000, 16384, 17408, 18432, 20480, 20481])
def test_worked_penalties(length: int) -> None:
    assert penalty(length) == EXAMPLES[f"sop.{length}"]


def test_worked_rewards() -> None:
    accuracy = np.array([1.0, -1.0])
    close(accuracy + penalty(np.array([17408, 20480])), EXAMPLES["dapo.reward"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 40000), min_size=2, max_size=2))
def test_it_falls_and_stays_between_0_and_minus_1(lengths: list[int]) -> None:
    found = penalty(np.array(sorted(lengths)))
    assert found[1] <= found[0]
    assert (found >= -1).all()
    assert (found <= 0).all()


def test_the_cache_may_be_the_whole_length_and_lengths_any_shape() -> None:
    found = jax.jit(lambda n: soft_overlong_penalty(n, max_length=4, cache_length=4))(
        jnp.array([[0, 1], [2, 9]])
    )
    assert found.tolist() == [[0.0, -0.25], [-0.5, -1.0]]
    traced = jax.jit(
        lambda n, m: soft_overlong_penalty(n, max_length=m, cache_length=2)
    )
    assert float(traced(3, 4)) == -0.5


def test_overlong_mask_turns_rows_off() -> None:
    mask = overlong_mask(MASK, np.array([1, 0, 0, 0]))
    assert mask.dtype == jnp.bool_
    assert mask.tolist() == (MASK * np.array([[0], [1], [1], [1]]) > 0).tolist()
    counts = batch_counts(mask)
    close(token_mean(VALUES, mask, counts), EXAMPLES["of.tok"])
    close(sequence_mean(VALUES, mask, counts), EXAMPLES["of.seq"])
    assert not overlong_mask(MASK.astype(float), np.ones(4, bool)).any()


def test_overlong_mask_under_vmap() -> None:
    masks, truncated = np.stack([MASK, MASK]), np.array([[0, 0, 0, 1], [1, 1, 0, 0]])
    found = jax.vmap(overlong_mask)(masks, truncated)
    assert found.sum(axis=(1, 2)).tolist() == [9, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: soft_overlong_penalty(1, max_length=4, cache_length=5),
            r"cache_length must be in \(0, max_length = 4\], got 5",
        ),
        (
            lambda: soft_overlong_penalty(1, max_length=4, cache_length=0),
            r"cache_length must be in \(0, max_length = 4\], got 0",
        ),
        (
            lambda: soft_overlong_penalty(1, max_length=0, cache_length=1),
            "max_length must be finite and > 0, got 0",
        ),
        (lambda: overlong_mask(MASK, MASK), r"truncated must have shape \[4\]"),
        (lambda: overlong_mask(MASK[0], MASK[0]), "2 axes"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
