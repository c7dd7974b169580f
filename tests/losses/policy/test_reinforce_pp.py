"""REINFORCE++ and whitening: worked numbers, masks, properties, mutants."""

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
    dr_grpo_advantages,
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
    whiten,
)
from tests.losses import reference
from tests.losses.worked import EXAMPLES, MASK, close

IDS = np.array([0, 0, 1, 1])
REWARDS = np.array([1, 0, 1, 0.5], np.float32)
GARBAGE = (np.nan, np.inf, 1e6)
white = jax.jit(whiten, static_argnames=("ddof", "center"))
rpp = jax.jit(reinforce_pp_advantages, static_argnames="ddof")
rppb = jax.jit(
    partial(reinforce_pp_baseline_advantages, num_groups=2),
    static_argnames=("ddof", "num_groups"),
)


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def whitened(x: np.ndarray, mask: np.ndarray, ddof: int = 1) -> np.ndarray:
    """In NumPy; 0 where nothing varies."""
    tokens = x[mask > 0]
    if len(set(tokens.tolist())) < 2:
        return np.zeros(x.shape)
    scale = np.sqrt(np.var(tokens, ddof=ddof) + 1e-8)
    return reference.where(mask, (x - tokens.mean()) / scale)


def test_worked_numbers() -> None:
    rewards = EXAMPLES["rpp.tok_r"]
    close(rpp(rewards, MASK), EXAMPLES["rpp.adv"])
    close(rpp(rewards, MASK, ddof=0), EXAMPLES["rpp.adv_ddof0"])
    centred = dr_grpo_advantages(REWARDS, IDS, num_groups=2)
    close(centred, EXAMPLES["rppb.cent"])
    close(rppb(REWARDS, IDS, MASK), EXAMPLES["rppb.adv"])
    close(white(EXAMPLES["full.adv"], MASK), EXAMPLES["full.white"])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_are_the_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((4, 4)) < 0.7).astype(int)
    x = rng.normal(2.0, 3.0, (4, 4)).astype(np.float32)
    exact, ddof = x.astype(np.float64), int(rng.integers(2))
    close(white(x, mask, ddof=ddof), whitened(exact, mask, ddof))
    returns = reference.discounted_returns(exact, mask, 0.9)
    found = rpp(x, mask, gamma=0.9, ddof=ddof)
    close(found, whitened(returns, mask, ddof))
    ids, valid = rng.integers(-1, 3, 4), rng.random(4) < 0.8
    on = valid & (ids >= 0) & (ids < 2) & (mask.sum(1) > 0)
    centred = reference.group_advantages("dr_grpo", x[:, 0], np.where(on, ids, -1))
    inside = mask * on[:, None]
    expected = whitened(reference.per_token(centred, inside), inside, ddof)
    close(rppb(x[:, 0], ids, mask, ddof=ddof, valid=valid), expected)


def test_mean_0_and_variance_1() -> None:
    x = np.random.default_rng(0).normal(5, 3, (4, 4)).astype(np.float32)
    tokens = np.asarray(white(x, MASK))[MASK > 0]
    close(tokens.mean(), 0)
    close(tokens.var(ddof=1), 1)
    # A common offset costs the digits that the input has lost by it, and no others.
    far = 7 * x + np.float32(1024)
    close(white(far, MASK), whitened(far.astype(np.float64), MASK))
    signs = np.asarray(white(x - 5, MASK, center=False))
    assert (np.sign(signs) == np.sign(np.where(MASK, x - 5, 0))).all()
    close(signs[MASK > 0].var(ddof=1), 1)


def test_whitening_that_keeps_the_mean() -> None:
    x = np.random.default_rng(1).normal(5, 3, (4, 4)).astype(np.float32)
    tokens = x[MASK > 0].astype(np.float64)
    kept = np.where(MASK, white(x, MASK) + tokens.mean(), 0)
    scale = np.sqrt(tokens.var(ddof=1) + 1e-8)
    plain = (x - tokens.mean()) / scale + tokens.mean()
    close(kept, np.where(MASK, plain, 0))


def test_the_lower_bound_of_the_variance_instead_of_eps() -> None:
    # OpenRLHF's form: the population's variance, at least 1e-8.
    returns = np.array(EXAMPLES["rpp.ret"])
    tokens = returns[MASK > 0]
    form = (returns - tokens.mean()) / np.sqrt(max(tokens.var(), 1e-8))
    close(np.where(MASK, form, 0), rpp(EXAMPLES["rpp.tok_r"], MASK, ddof=0))


def test_equal_values_are_exactly_zero() -> None:
    def check(scale: Callable) -> None:
        for size in (8, 11):
            x = np.full((1, size), 0.1, np.float32)
            assert (np.asarray(scale(x, np.ones((1, size)))) == 0).all()

    check(whiten)

    def plain(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        mean = np.float32(np.add.accumulate(x.ravel())[-1] / np.float32(x.size))
        return (x - mean) / np.sqrt(((x - mean) ** 2).mean() + 1e-8)

    breaks(check, plain)
    tenth = np.full((4, 4), 0.1, np.float32)
    assert (np.asarray(white(tenth, MASK, center=False))[MASK > 0] == tenth[0, 0]).all()
    same = np.full(4, 0.1, np.float32)
    assert (np.asarray(rppb(same, IDS, MASK)) == 0).all()


@pytest.mark.parametrize("center", [True, False])
def test_nothing_and_one_token(center: bool) -> None:
    x = np.full((4, 4), 3, np.float32)
    assert (np.asarray(white(x, 0 * MASK, center=center)) == 0).all()
    one = np.zeros_like(MASK)
    one[1, 1] = 1
    found = np.asarray(white(x, one, center=center))
    assert found.sum() == (0 if center else 3)


def test_what_is_masked_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(4, 4)).astype(np.float32)
    for garbage in GARBAGE:
        dirty = np.where(MASK, x, garbage).astype(np.float32)
        for function in (white, rpp):
            assert (np.asarray(function(dirty, MASK)) == function(x, MASK)).all()


def test_padding_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, 4)).astype(np.float32)
    wide = np.pad(x, [(0, 2), (0, 3)], constant_values=np.nan)
    mask = np.pad(MASK, [(0, 2), (0, 3)])
    close(np.asarray(rpp(wide, mask))[:4, :4], rpp(x, MASK))
    # Dummy rows that carry an id of a group are not counted in its mean.
    rewards = np.concatenate([REWARDS, [np.nan, 9.0]]).astype(np.float32)
    ids = np.concatenate([IDS, [0, 1]])
    found = np.asarray(rppb(rewards, ids, mask))
    close(found[:4, :4], rppb(REWARDS, IDS, MASK))
    assert (found[4:] == 0).all()


def reset_returns(rewards: Any, mask: Any) -> np.ndarray:
    """The running sum times the mask on its way to the left, as verl has it."""
    out, later = np.zeros(np.shape(rewards)), np.zeros(len(rewards))
    for t in reversed(range(out.shape[1])):
        later = (np.asarray(rewards)[:, t] + later) * np.asarray(mask)[:, t]
        out[:, t] = later
    return out


def test_returns_are_carried_over_a_tools_tokens() -> None:
    rewards, mask = np.array([[0.0, 0, 0, 1]]), np.array([[1, 0, 1, 1]])
    close(discounted_returns(rewards, mask)[0], EXAMPLES["mask.carry"])
    close(reset_returns(rewards, mask)[0], EXAMPLES["mask.reset"])
    rng = np.random.default_rng(4)
    narrow = rng.normal(size=(4, 4)).astype(np.float32)
    wide = np.insert(narrow, [0, 2, 4], 0.0, axis=1)
    wide_mask = np.insert(np.ones((4, 4)), [0, 2, 4], 0, axis=1)

    def check(estimate: Callable) -> None:
        found = np.asarray(estimate(wide, wide_mask))
        close(found[wide_mask > 0].reshape(4, 4), estimate(narrow, np.ones((4, 4))))
        assert (found[wide_mask == 0] == 0).all()

    check(rpp)
    breaks(check, lambda r, m: whitened(reset_returns(r, m), m))


def test_the_statistics_are_those_of_the_whole_batch() -> None:
    rewards = np.array(EXAMPLES["rpp.tok_r"])

    def check(estimate: Callable) -> None:
        close(estimate(rewards, MASK), EXAMPLES["rpp.adv"])

    check(rpp)
    # Each half by its own statistics, and the mean without regard to the mask.
    breaks(
        check, lambda r, m: np.concatenate([rpp(r[p], m[p]) for p in ([0, 1], [2, 3])])
    )
    returns = np.array(EXAMPLES["rpp.ret"])
    breaks(check, lambda r, m: np.where(m, whitened(returns, np.ones((4, 4))), 0))


def test_the_baseline_variant_is_not_scaled_by_its_group() -> None:
    rewards = np.array([8, 0, 1, 0], np.float32)
    full = np.ones((4, 4))

    def check(estimate: Callable) -> None:
        found = np.asarray(estimate(rewards))[:, 0]
        close(found[0] / found[2], 8.0)

    check(lambda r: rppb(r, IDS, full))
    breaks(check, lambda r: reference.group_advantages("grpo", r, IDS)[:, None] * full)


def test_silent_groups_in_the_baseline_variant() -> None:
    rewards = np.array([1, 0, 0.5, 0.5], np.float32)
    found = np.asarray(rppb(rewards, IDS, MASK))
    # Six tokens of group 0: four of +1/2 and two of -1/2; four tokens of 0.
    centred = np.repeat([0.5, -0.5, 0, 0], 4).reshape(4, 4)
    close(found, whitened(centred, MASK))
    assert (found[2:] < 0)[MASK[2:] > 0].all()
    alone = np.array([0, 0, 1, 5])
    found = np.asarray(rppb(rewards, alone, MASK))
    assert (found[3] == 0).all()
    close(found[:3], np.asarray(rppb(rewards, alone, MASK * [[1], [1], [1], [0]]))[:3])


def test_permuted_rows_and_relabelled_groups() -> None:
    order = np.array([2, 0, 3, 1])
    found = np.asarray(rppb(REWARDS, IDS, MASK))
    close(rppb(REWARDS[order], 1 - IDS[order], MASK[order]), found[order])


def test_jit_vmap_grad_and_types() -> None:
    rewards = np.array(EXAMPLES["rpp.tok_r"], np.float32)
    both = jax.vmap(rpp)(np.stack([rewards, 2 * rewards]), np.stack([MASK, MASK]))
    close(both[0], rpp(rewards, MASK))
    close(both[1], both[0])
    coarse = jnp.asarray(REWARDS, jnp.bfloat16)
    found = rppb(coarse, IDS, MASK)
    assert found.dtype == jnp.float32
    close(found, EXAMPLES["rppb.adv"])
    weights = np.arange(16.0).reshape(4, 4)
    for function in (white, rpp, lambda x, m: rppb(x[:, 0], IDS, m)):
        slope = jax.grad(lambda x, f=function: (weights * f(x, MASK)).sum())
        assert (np.asarray(slope(rewards)) == 0).all()
    for size in ((4,), (2, 2, 4)):
        x = np.arange(np.prod(size), dtype=np.float32).reshape(size)
        assert whiten(x, np.ones(size)).shape == size


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whiten(REWARDS, MASK), "x and mask must have 1 axes and one shape"),
        (lambda: whiten(MASK, MASK, ddof=2), "ddof must be 0 or 1, got 2"),
        (lambda: whiten(MASK, MASK, eps=-1.0), "eps must be finite and >= 0"),
        (lambda: reinforce_pp_advantages(MASK, MASK, gamma=2.0), r"gamma must be in"),
        (lambda: reinforce_pp_advantages(REWARDS, MASK), "2 axes"),
        (lambda: rppb(REWARDS[:3], IDS, MASK), r"rewards \[3\]"),
        (lambda: rppb(REWARDS, IDS[:3], MASK), r"group_ids must have shape \[4\]"),
        (lambda: rppb(REWARDS, IDS, MASK[0]), "mask must have 2 axes"),
        (lambda: rppb(REWARDS, IDS, MASK, valid=np.ones(2)), r"valid \[2\]"),
        (lambda: rppb(REWARDS, IDS, MASK, num_groups=0), "num_groups must be"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
