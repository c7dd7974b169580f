"""The optimal token baseline: worked numbers, plain loops, and that it is optimal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from jaxrl_reason.losses import rewards_at_end, sum_squared_probs
from tests.losses.worked import close

GROUPS = 3
otb_advantages = jax.jit(
    lib.otb_advantages, static_argnames=("num_groups", "zero_tail")
)


def reference(
    arrays: Any, weights: np.ndarray, zero_tail: bool, valid: np.ndarray
) -> np.ndarray:
    rewards, logprobs, squares, ids, mask = (np.asarray(x, np.float64) for x in arrays)
    out = np.zeros(mask.shape)
    for g in range(GROUPS):
        rows = []
        for i in np.flatnonzero((ids == g) & valid):
            at = np.flatnonzero(mask[i])
            w = 1 - 2 * np.exp(logprobs[i, at]) + squares[i, at]
            total = np.cumsum(w * weights[i, at] ** 2)
            rows.append((i, at, total, np.cumsum(rewards[i, at][::-1])[::-1]))
        for n in range(mask.shape[1]):
            here = [(i, at[n], w[n], r[n]) for i, at, w, r in rows if len(at) > n]
            if len(here) == 1 and zero_tail:
                (i, t, _, r) = here[0]
                out[i, t] = r
            elif here:
                base = sum(w * r for *_, w, r in here) / sum(w for *_, w, _ in here)
                for i, t, _, r in here:
                    out[i, t] = r - base
    return out


def random_arrays(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(8, 7, 5))
    logprobs = np.asarray(jax.nn.log_softmax(logits))[:, :, 0]
    mask = rng.random((8, 7)) < 0.8
    mask[2] = False
    return (
        rng.normal(size=(8, 7)).astype(np.float32),
        logprobs.astype(np.float32),
        np.asarray(sum_squared_probs(logits)),
        rng.integers(-1, GROUPS, 8).astype(np.int32),
        mask,
    )


def test_by_hand() -> None:
    rewards, mask = np.array([[0.0, 1.0], [0.0, 0.0]]), np.ones((2, 2))
    logprobs, squares = np.log([[0.5, 0.5], [0.25, 0.5]]), np.full((2, 2), 0.5)
    ids = np.array([0, 0])
    found = otb_advantages(rewards, logprobs, squares, ids, mask, num_groups=1)
    # W = 1/2 and 1, then 1 and 3/2; returns 1 and 0.
    close(found, [[1 - 1 / 3, 1 - 2 / 5], [-1 / 3, -2 / 5]])
    weights = np.array([[2.0, 1.0], [1.0, 1.0]])
    arrays = (rewards, logprobs, squares, ids, mask)
    found = otb_advantages(*arrays, num_groups=1, weights=weights)
    close(found[:, 0], [1 - 2 / 3, -2 / 3])  # W = 2 and 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("zero_tail", [False, True])
def test_values_are_the_references(seed: int, zero_tail: bool) -> None:
    arrays = random_arrays(seed)
    weights = np.random.default_rng(seed).uniform(0.5, 1.5, (8, 7)).astype(np.float32)
    valid = np.arange(8) != seed
    settings = {"zero_tail": zero_tail, "valid": valid, "num_groups": GROUPS}
    found = otb_advantages(*arrays, weights=weights, **settings)
    close(found, reference(arrays, weights, zero_tail, valid), rtol=3e-6)


def test_masked_tokens_change_nothing() -> None:
    rewards, logprobs, squares, ids, _ = random_arrays(0)
    ids = np.abs(ids)
    plain = otb_advantages(
        rewards, logprobs, squares, ids, np.ones((8, 7)), num_groups=GROUPS
    )
    mask = np.insert(np.ones((8, 7), bool), 3, False, axis=1)
    mask[1] = np.roll(mask[1], 2)  # a hole at another place
    wide = []
    for x in (rewards, logprobs, squares):
        y = np.full((8, 8), np.nan, np.float32)
        y[mask] = x.ravel()
        wide.append(y)
    found = otb_advantages(*wide, ids, mask, num_groups=GROUPS)
    close(found[mask], np.asarray(plain).ravel())
    assert (np.asarray(found)[~mask] == 0).all()


def test_equal_returns_give_exactly_zero() -> None:
    _, logprobs, squares, _, mask = random_arrays(1)
    rewards = rewards_at_end(np.full(8, 0.1), mask)
    zeros = np.zeros(8, int)
    found = otb_advantages(rewards, logprobs, squares, zeros, mask, num_groups=1)
    assert (found == 0).all()
    alone = otb_advantages(rewards, logprobs, squares, np.arange(8), mask, num_groups=8)
    assert (alone == 0).all()
    certain = (np.zeros((8, 7)), np.ones((8, 7)))  # no gradient: the group's mean
    rewards = rewards_at_end(np.arange(8.0), np.ones((8, 7)))
    found = otb_advantages(rewards, *certain, zeros, np.ones((8, 7)), num_groups=1)
    close(found[:, 0], np.arange(8) - 3.5)


def test_the_weight_is_the_norm_of_the_gradient_in_the_logits() -> None:
    logits = jnp.array([0.3, -1.0, 0.7])
    squares = sum_squared_probs(logits)
    for y in range(3):
        slope = jax.grad(lambda z, y=y: jax.nn.log_softmax(z)[y])(logits)
        p = jax.nn.softmax(logits)[y]
        close((slope**2).sum(), 1 - 2 * p + squares)
    close(sum_squared_probs(2 * logits, temperature=2.0), squares)


def test_no_other_baseline_has_less_variance() -> None:
    """Of sum_i W_i (G_i - b)^2, which is the gradient's second moment."""
    arrays = random_arrays(3)
    zeros, ones = np.zeros(8, int), np.ones((8, 7))
    rewards, logprobs, squares = arrays[:3]
    found = np.asarray(
        otb_advantages(rewards, logprobs, squares, zeros, ones, num_groups=1)
    )
    w = np.cumsum(1 - 2 * np.exp(logprobs) + squares, axis=1)
    least = (w * found**2).sum(0)
    for shift in (-0.1, 0.1):
        assert (least < (w * (found + shift) ** 2).sum(0)).all()


def test_refusals() -> None:
    arrays = random_arrays(0)
    with pytest.raises(ValueError, match="squared_probs and mask must have 2 axes"):
        lib.otb_advantages(*arrays[:2], arrays[2][:3], *arrays[3:], num_groups=3)
    with pytest.raises(ValueError, match="temperature must be finite and > 0, got 0"):
        sum_squared_probs(np.ones(3), temperature=0)
    with pytest.raises(ValueError, match=r"logits must have shape \[B, T, V\], got"):
        sum_squared_probs(np.float32(1))
