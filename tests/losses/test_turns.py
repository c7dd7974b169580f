"""Turns as actions: worked numbers, a plain reference, what GAE of tokens says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from jaxrl_reason.losses import gae, turn_starts
from tests.losses.worked import close

turn_gae = jax.jit(lib.turn_gae)


def turns_of(mask: np.ndarray, ids: np.ndarray | None) -> list[list[list[int]]]:
    """The tokens of each turn of each row."""
    out = []
    for i in range(len(mask)):
        turns: list[list[int]] = []
        for t in np.flatnonzero(mask[i]):
            last = turns[-1][-1] if turns else None
            if last is not None and (
                ids[i, t] == ids[i, last] if ids is not None else last == t - 1
            ):
                turns[-1].append(int(t))
            else:
                turns.append([int(t)])
        out.append(turns)
    return out


def reference(
    rewards: np.ndarray,
    values: np.ndarray,
    turns: list[list[list[int]]],
    gamma: float,
    lam: float,
    end: np.ndarray,
) -> np.ndarray:
    out = np.zeros(rewards.shape)
    for i, row in enumerate(turns):
        if not row:
            continue
        after = [values[i, turn[0]] for turn in row[1:]] + [end[i]]
        delta = [
            sum(rewards[i, t] for t in turn) + gamma * v - values[i, turn[0]]
            for turn, v in zip(row, after, strict=True)
        ]
        for k, turn in enumerate(row):
            out[i, turn] = sum((gamma * lam) ** j * d for j, d in enumerate(delta[k:]))
    return out


def random_inputs(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, 4, 9)).astype(np.float32)
    mask = rng.random((4, 9)) < 0.7
    mask[3] = False
    ids = np.cumsum(rng.random((4, 9)) < 0.4, axis=1).astype(np.int32)
    return rewards, values, mask, ids, rng.normal(size=4).astype(np.float32)


def test_by_hand() -> None:
    mask = np.array([[1, 1, 0, 1, 1, 0]])
    rewards = np.array([[0.0, 0.5, 7.0, 0.0, 1.0, 7.0]])
    values = np.array([[0.5, 9.0, 9.0, 0.75, 9.0, np.nan]])
    advantages, targets, starts = turn_gae(rewards, values, mask, gamma=0.8, lam=0.5)
    second = 1 - 0.75
    first = (0.5 + 0.8 * 0.75 - 0.5) + 0.8 * 0.5 * second
    close(advantages, [[first, first, 0, second, second, 0]])
    close(targets, [[first + 0.5, 0, 0, 1.0, 0, 0]])
    np.testing.assert_array_equal(starts, [[1, 0, 0, 1, 0, 0]])
    advantages, _, _ = turn_gae(rewards, values, mask, bootstrap=np.array([2.0]))
    close(advantages[0, 3:5], [2.25, 2.25])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (0.9, 0.0)])
def test_values_are_the_references(seed: int, gamma: float, lam: float) -> None:
    rewards, values, mask, ids, end = random_inputs(seed)
    for given in (None, ids):
        turns = turns_of(mask, given)
        settings = {"gamma": gamma, "lam": lam, "turn_ids": given, "bootstrap": end}
        advantages, targets, starts = turn_gae(rewards, values, mask, **settings)
        expected = reference(rewards, values, turns, gamma, lam, end)
        close(advantages, expected)
        first = np.zeros(mask.shape, bool)
        for i, row in enumerate(turns):
            first[i, [turn[0] for turn in row]] = True
        np.testing.assert_array_equal(starts, first)
        close(targets, np.where(first, expected + values, 0))


def test_turns_of_one_token_are_gae() -> None:
    rewards, values, mask, _, end = random_inputs(0)
    ids = np.broadcast_to(np.arange(9), (4, 9)).astype(np.int32)
    settings = {"gamma": 0.9, "lam": 0.8, "bootstrap": end}
    found = turn_gae(rewards, values, mask, turn_ids=ids, **settings)
    for x, y in zip(found, gae(rewards, values, mask, **settings), strict=False):
        close(x, y)


def test_the_length_of_a_turn_discounts_nothing() -> None:
    """Token-level GAE would discount the outcome by 0.9 a token."""
    for length in (1, 5):
        ones = np.ones((1, length))
        rewards = np.eye(length)[-1:]
        advantages, _, _ = turn_gae(rewards, 0 * ones, ones, gamma=0.9, lam=0.9)
        close(advantages, ones)


def test_what_is_masked_is_not_seen() -> None:
    rewards, values, mask, ids, _ = random_inputs(1)
    clean = turn_gae(rewards, values, mask, turn_ids=ids)
    rewards, values = (np.where(mask, x, np.nan) for x in (rewards, values))
    dirty = turn_gae(rewards, values, mask, turn_ids=np.where(mask, ids, -7))
    for x, y in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(x, y)
    empty = turn_gae(rewards, values, 0 * mask)
    assert all((np.asarray(x) == 0).all() for x in empty)
    none = jnp.zeros((2, 0))
    assert all(x.shape == (2, 0) for x in turn_gae(none, none, none))


def test_nothing_is_differentiated() -> None:
    rewards, values, mask, _, end = random_inputs(2)

    def total(rewards: jax.Array, values: jax.Array, end: jax.Array) -> jax.Array:
        advantages, targets, _ = turn_gae(rewards, values, mask, bootstrap=end)
        return (advantages + targets).sum()

    for grad in jax.grad(total, (0, 1, 2))(rewards, values, end):
        assert (grad == 0).all()


def test_refusals() -> None:
    rewards, values, mask, ids, _ = random_inputs(3)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.1"):
        lib.turn_gae(rewards, values, mask, gamma=1.1)
    with pytest.raises(ValueError, match="turn_ids must be an integer array, got fl"):
        turn_starts(mask, ids.astype(np.float32))
    with pytest.raises(ValueError, match="turn_ids and mask must have 2 axes and one"):
        turn_starts(mask, ids[:2])
