"""Steps of a process reward model: worked numbers, loops beside arrays, masks."""

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
    discounted_returns,
    min_future_step_scores,
    process_supervision_advantages,
    rewards_at_end,
    rewards_at_steps,
    step_score_gains,
    whiten,
)
from tests.losses.worked import EXAMPLES, close

Array = np.ndarray
# The worked example: two responses of one group, with two and three steps.
SCORES = np.array([[0.8, 0.2, np.nan], [0.5, 1, 0.6]], np.float32)
ENDS = np.array([[1, 3, 2], [0, 2, 3]])
STEPS = np.array([[1, 1, 0], [1, 1, 1]])
IDS, MASK = np.array([0, 0]), np.ones((2, 4), int)
place, lowest, gains = (
    jax.jit(f) for f in (rewards_at_steps, min_future_step_scores, step_score_gains)
)
supervise = jax.jit(
    partial(process_supervision_advantages, num_groups=2), static_argnames="ddof"
)


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def test_worked_numbers() -> None:
    close(supervise(SCORES, ENDS, STEPS, IDS, MASK), EXAMPLES["prm.adv"])
    # The first step's advantage is the sum of what follows: differences give each z.
    found = np.asarray(supervise(SCORES, ENDS, STEPS, IDS, MASK))
    z = [found[0, 0] - found[0, 2], found[0, 2], found[1, 0] - found[1, 1]]
    z += [found[1, 1] - found[1, 3], found[1, 3]]
    close(z, EXAMPLES["prm.z"])


def steps_of(ends: Array, on: Array, mask: Array, i: int) -> list[int]:
    """Steps of a row that reach an unmasked token."""
    return [
        j
        for j in range(ends.shape[1])
        if on[i, j] and ends[i, j] >= 0 and mask[i, : ends[i, j] + 1].any()
    ]


def later_steps(ends: Array, on: Array, mask: Array, i: int, t: int) -> list[int]:
    return [j for j in steps_of(ends, on, mask, i) if ends[i, j] >= t]


def in_loops(kind: str, scores: Array, ends: Array, on: Array, mask: Array) -> Array:
    """Sums and minima over the steps that end at or after each unmasked token."""
    out = np.zeros(mask.shape)
    for i, t in zip(*np.nonzero(mask), strict=True):
        p = [scores[i, j] for j in later_steps(ends, on, mask, i, t)]
        out[i, t] = sum(p) if kind == "sum" else min(p, default=0.0)
    return out


def standardised(
    scores: Array, ends: Array, on: Array, ids: Array, mask: Array, ddof: int
) -> Array:
    """Every step's score by the mean and std of all steps of its group."""
    out = np.zeros(scores.shape)
    for g in {0, 1} & set(ids.tolist()):
        rows = np.flatnonzero(ids == g)
        at = [(i, j) for i in rows for j in steps_of(ends, on, mask, i)]
        p = np.array([scores[a] for a in at])
        if len(p) > 1 and p.max() != p.min():
            for a in at:
                out[a] = (scores[a] - p.mean()) / p.std(ddof=ddof)
    return out


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_those_of_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((6, 8)) < 0.7).astype(int)
    mask[0] = 0
    ends = rng.integers(-2, 11, (6, 4))  # any order, before and beyond the row too
    on = rng.random((6, 4)) < 0.8
    scores = rng.normal(size=(6, 4)).astype(np.float32)
    dirty = np.where(on, scores, rng.choice([np.nan, np.inf, 1e6])).astype(np.float32)
    exact, ids, ddof = scores.astype(np.float64), rng.integers(-1, 3, 6), seed % 2
    placed = np.asarray(place(dirty, ends, on, mask))
    sums = np.where(mask, np.cumsum(placed[:, ::-1], 1)[:, ::-1], 0)
    close(sums, in_loops("sum", exact, ends, on, mask))
    close(lowest(dirty, ends, on, mask), in_loops("min", exact, ends, on, mask))
    z = standardised(exact, ends, on, ids, mask, ddof)
    found = supervise(dirty, ends, on, ids, mask, ddof=ddof)
    close(found, in_loops("sum", z, ends, on, mask))


def test_returns_of_the_four_kinds() -> None:
    # One response of three steps of two tokens each.
    scores, ends = np.array([[0.5, 0.25, 0.75]]), np.array([[1, 3, 5]])
    steps, mask = np.ones((1, 3)), np.ones((1, 6))
    to_go = discounted_returns(rewards_at_steps(scores, ends, steps, mask), mask)
    close(to_go, [[1.5, 1.5, 1, 1, 0.75, 0.75]])
    gained = rewards_at_steps(step_score_gains(scores, steps), ends, steps, mask)
    close(discounted_returns(gained, mask), [[0.75, 0.75, 0.25, 0.25, 0.5, 0.5]])
    worst = min_future_step_scores(scores, ends, steps, mask)
    close(worst, [[0.25, 0.25, 0.25, 0.25, 0.75, 0.75]])
    # With the outcome as one more reward on the last token.
    both = rewards_at_steps(scores, ends, steps, mask) + rewards_at_end([1.0], mask)
    close(discounted_returns(both, mask), np.asarray(to_go) + 1)
    white = np.asarray(whiten(to_go, mask))
    close([white.mean(), white.var(ddof=1)], [0, 1])


def test_more_steps_only_pay_in_the_sum() -> None:
    few, many = np.array([[0.5, 0.75]]), np.array([[0.5, 0.5, 0.5, 0.75]])

    def check(total: Callable) -> None:
        close(total(few), total(many))

    check(lambda p: np.asarray(gains(p, np.ones_like(p))).sum())
    ends = np.arange(4)[None, :]
    check(lambda p: lowest(p, ends[:, : p.size], p > 0, MASK[:1])[0, 0])
    breaks(check, np.sum)


def test_gains_step_over_what_is_masked() -> None:
    scores = np.array([[np.nan, 0.5, np.inf, 0.25, 1.0], [0.5, 1, 1, 1, 1]])
    steps = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
    close(gains(scores, steps), [[0, 0.5, 0, -0.25, 0.75], [0, 0, 0, 0, 0]])


def test_a_step_that_ends_on_a_tools_token_is_not_lost() -> None:
    mask = np.array([[1, 1, 0, 0, 1, 1]])
    ends, scores, steps = np.array([[3, 5]]), np.array([[0.5, 1.0]]), np.ones((1, 2))

    def check(put: Callable) -> None:
        to_go = discounted_returns(put(scores, ends, steps, mask), mask)
        close(to_go, [[1.5, 1.5, 0, 0, 1, 1]])

    check(rewards_at_steps)

    def masked_away(scores: Any, ends: Any, steps: Any, mask: Any) -> Array:
        out = np.zeros(mask.shape)
        np.put_along_axis(out, ends, scores, axis=1)
        return out * mask

    breaks(check, masked_away)


def test_steps_that_meet_add_up() -> None:
    ends = np.array([[2, 2, 3], [0, 0, 0]])
    scores = np.where(STEPS, SCORES, 0)
    expected = [[0, 0, 1, 0], [2.1, 0, 0, 0]]
    close(place(scores, ends, STEPS, MASK), expected)


def test_statistics_are_of_the_groups_existing_steps() -> None:
    expected = EXAMPLES["prm.adv"]

    def check(estimate: Callable) -> None:
        close(estimate(np.where(STEPS, SCORES, 0.0).astype(np.float32)), expected)

    check(lambda p: supervise(p, ENDS, STEPS, IDS, MASK))
    # Padded steps in the statistics; each response by its own; the population's std.
    breaks(
        check,
        lambda p: supervise(
            p, np.array([[1, 3, 3], [0, 2, 3]]), np.ones((2, 3)), IDS, MASK
        ),
    )
    breaks(check, lambda p: supervise(p, ENDS, STEPS, np.array([0, 1]), MASK))
    breaks(check, lambda p: supervise(p, ENDS, STEPS, IDS, MASK, ddof=0))


def test_equal_scores_give_exactly_zero() -> None:
    scores = np.full((2, 6), 0.1, np.float32)  # eleven steps
    ends, steps = np.tile(np.arange(6), (2, 1)), np.ones((2, 6))
    steps[0, 5] = 0

    def check(estimate: Callable) -> None:
        assert (np.asarray(estimate(scores)) == 0).all()

    check(lambda p: supervise(p, ends, steps, IDS, np.ones((2, 6))))

    def plain(p: Array) -> Array:
        mean = np.float32(np.add.accumulate(p[steps > 0])[-1] / np.float32(11))
        return (p - mean) / (np.sqrt(((p - mean) ** 2).mean()) + 1e-6)

    breaks(check, plain)
    one = np.array([0, 1])  # and a group that has one step
    steps = np.eye(2, 6)
    assert (np.asarray(supervise(scores, ends, steps, one, np.ones((2, 6)))) == 0).all()


def padded() -> tuple[Array, ...]:
    """The example with rows, tokens and steps that do not exist."""
    rows = np.array([2, 2, 0, 1])  # row 2 is padding
    wide = lambda x, fill, more: np.pad(  # noqa: E731
        x, [(0, 1), (0, more)], constant_values=fill
    )[rows]
    return (
        wide(SCORES, np.nan, 2),
        wide(ENDS, 1, 2),
        np.pad(STEPS, [(0, 1), (0, 2)], constant_values=0)[rows],
        np.zeros(4, int),
        wide(MASK, 0, 3),
    )


def test_padding_changes_nothing() -> None:
    scores, ends, steps, ids, mask = padded()
    found = np.asarray(supervise(scores, ends, steps, ids, mask))
    close(found[2:, :4], EXAMPLES["prm.adv"])
    assert (found[:2] == 0).all()
    assert (found[:, 4:] == 0).all()
    # A row without unmasked tokens is left out although its steps are marked.
    marked = np.asarray(supervise(np.nan_to_num(scores), ends, steps | 1, ids, mask))
    assert (marked[:2] == 0).all()
    one = np.concatenate([STEPS, np.ones((1, 3), int)])
    more = [np.concatenate([x, x[-1:]]) for x in (SCORES, ENDS)]
    dead = np.concatenate([MASK, 0 * MASK[:1]])
    close(supervise(*more, one, np.zeros(3, int), dead)[:2], EXAMPLES["prm.adv"])


def test_rows_that_are_left_out_or_permuted() -> None:
    more = [np.concatenate([x, x[-1:]]) for x in (SCORES, ENDS, STEPS, MASK)]
    more[0][-1] = np.nan
    scores, ends, steps, mask = more
    for ids, valid in (([0, 0, 0], [1, 1, 0]), ([0, 0, -1], None), ([0, 0, 2], None)):
        found = supervise(scores, ends, steps, np.array(ids), mask, valid=valid)
        close(found[:2], EXAMPLES["prm.adv"])
        assert (np.asarray(found[2]) == 0).all()
    found = supervise(SCORES[::-1], ENDS[::-1], STEPS[::-1], 1 - IDS, MASK)
    close(found, EXAMPLES["prm.adv"][::-1])


def test_a_nan_is_not_hidden() -> None:
    scores = np.where(STEPS, [[np.nan, 1, 0], [0, 1, 1]], 0)
    for function in (place, lowest):
        found = np.asarray(function(scores, ENDS, STEPS, MASK))
        assert np.isnan(found[0]).any()
        assert np.isfinite(found[1]).all()
    assert np.isnan(supervise(scores, ENDS, STEPS, IDS, MASK)).all()


def test_jit_vmap_grad_and_types() -> None:
    scores = np.where(STEPS, SCORES, 0).astype(np.float32)
    rest = (ENDS, STEPS, MASK)
    functions: dict[str, Callable] = {
        "place": lambda p: place(p, *rest),
        "lowest": lambda p: lowest(p, *rest),
        "gains": lambda p: gains(p, STEPS),
        "supervise": lambda p: supervise(p, ENDS, STEPS, IDS, MASK),
    }
    for function in functions.values():
        found = function(scores)
        close(jax.vmap(function)(np.stack([scores, scores]))[1], found)
        coarse = jnp.asarray(scores, jnp.bfloat16)
        exact = function(coarse.astype(jnp.float32))
        found_coarse = function(coarse)
        assert found_coarse.dtype == jnp.float32
        assert not found_coarse.weak_type
        close(found_coarse, exact)
        weights = np.arange(found.size, dtype=np.float32).reshape(found.shape)
        slope = jax.grad(lambda p, f=function, w=weights: (w * f(p)).sum())
        assert (np.asarray(slope(scores)) == 0).all()


@pytest.mark.parametrize("function", [rewards_at_steps, min_future_step_scores])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((SCORES[0], ENDS, STEPS, MASK), "must have 2 axes and one shape"),
        ((SCORES, ENDS[:, :2], STEPS, MASK), r"step_ends \[2, 2\]"),
        ((SCORES, ENDS * 1.0, STEPS, MASK), "step_ends must be an integer array"),
        ((SCORES, ENDS, STEPS, MASK[0]), "mask must have 2 axes"),
        ((SCORES, ENDS, STEPS, MASK[:1]), "step_scores must have 1 rows like the mask"),
    ],
)
def test_refusals(function: Callable, arrays: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(*arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_ids": IDS[:1]}, r"group_ids must have shape \[2\]"),
        ({"group_ids": IDS * 1.0}, "group_ids must be an integer array"),
        ({"valid": np.ones(3)}, r"valid must have shape \[2\]"),
        ({"ddof": 2}, "ddof must be 0 or 1, got 2"),
        ({"eps": -1.0}, "eps must be finite and >= 0"),
        ({"num_groups": None}, "num_groups must be a static integer"),
    ],
)
def test_refusals_of_supervision(change: dict[str, Any], message: str) -> None:
    given_ = {"group_ids": IDS, "mask": MASK, "num_groups": 1, **change}
    with pytest.raises(ValueError, match=message):
        process_supervision_advantages(SCORES, ENDS, STEPS, **given_)


def test_gains_refuse_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"step_mask \[2, 2\]"):
        step_score_gains(SCORES, STEPS[:, :2])
