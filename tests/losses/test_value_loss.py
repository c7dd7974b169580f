"""The critic's loss."""

from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import batch_counts, token_mean, value_loss
from tests.losses.worked import EXAMPLES, close

OLD = np.array([[0.5, 0.2, 0.7]])
NEW = np.array([[1.2, 0.9, 0.1]], np.float32)
TARGET = ONES = np.ones((1, 3))


def test_worked_numbers() -> None:
    plain = value_loss(NEW, OLD, TARGET, ONES)
    close(2 * np.asarray(plain[0]), EXAMPLES["vl.u"])
    tokens = value_loss(NEW, OLD, TARGET, ONES, clip=0.5)
    close(2 * np.asarray(tokens[0]), np.maximum(EXAMPLES["vl.u"], EXAMPLES["vl.c"]))
    close(token_mean(tokens, ONES, batch_counts(ONES)), EXAMPLES["vl.loss"])


def test_worked_clips() -> None:
    # A target one further on than the value: there the clipped value is the worse one,
    # and the loss tells where it is.
    side = np.sign(NEW - OLD)
    target = NEW + side
    worse = np.asarray(value_loss(NEW, OLD, target, ONES, clip=0.5))
    close((target - side * np.sqrt(2 * worse))[0], EXAMPLES["vl.clipped"])
    plain, clipped = (value_loss(NEW, OLD, TARGET, ONES, clip=c) for c in (None, 0.5))
    fraction = token_mean(1.0 * (clipped > plain), ONES, batch_counts(ONES))
    close(fraction, EXAMPLES["vl.frac"])


def test_where_the_clipped_term_wins_nothing_is_learnt() -> None:
    grad = jax.grad(lambda v: value_loss(v, OLD, TARGET, ONES, clip=0.5).sum())(NEW)
    close(grad[0], [0.2, 0.0, -0.9])  # the second is clipped


def test_inside_the_clip_it_is_the_plain_loss() -> None:
    for values in (OLD, OLD + 0.5):  # in the middle and on the bound
        close(
            jax.grad(lambda v: value_loss(v, OLD, TARGET, ONES, clip=0.5).sum())(
                values.astype(np.float32)
            ),
            values - TARGET,
        )


def test_old_values_are_needed_for_a_clip_only() -> None:
    close(
        value_loss(NEW, None, TARGET, ONES),
        value_loss(NEW, np.nan * OLD, TARGET, ONES),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": 0.0}, "clip must be finite and > 0, got 0.0"),
        ({"clip": 0.2, "old_values": None}, "clip must come with old_values"),
        ({"returns": TARGET[0]}, r"returns \[3\]"),
        ({"old_values": OLD[:, :2], "clip": 0.2}, r"old_values \[1, 2\]"),
        ({"values": np.array([[1, 1, 0]])}, "values must be a floating array"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    arrays = {"values": NEW, "old_values": OLD, "returns": TARGET, "mask": ONES}
    with pytest.raises(ValueError, match=message):
        value_loss(**{**arrays, **change})
