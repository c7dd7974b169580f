"""GSPO and GMPO: one ratio per sequence, and the mean over sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    gmpo,
    gspo,
    policy_gradient,
    sequence_mean,
    token_mean,
)
from tests.losses import reference_objectives as own
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, close

COUNTS = batch_counts(MASK)
ARRAYS = (NEW, OLD, ADVANTAGES, MASK)
X = NEW.astype(np.float32)
both = pytest.mark.parametrize("objective", [gspo, gmpo])
WIDE = {"clip_low": 100.0, "clip_high": 1e9}  # nothing is clipped


def slope(objective: Callable, reduction: Callable = sequence_mean) -> Callable:
    """Value and gradient of the reduced objective, compiled as one."""

    def loss(x: Any, old: Any = OLD, a: Any = ADVANTAGES, mask: Any = MASK) -> Any:
        return reduction(objective(x, old, a, mask), mask, batch_counts(mask))

    return jax.jit(jax.value_and_grad(loss))


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


@pytest.mark.parametrize(("objective", "name"), [(gspo, "gspo"), (gmpo, "gmpo")])
def test_worked_loss_and_gradient(objective: Callable, name: str) -> None:
    value, grad = slope(objective)(X)
    close(value, EXAMPLES[f"{name}.loss"])
    close(grad, EXAMPLES[f"{name}.grad"])


def test_worked_sequences_of_gspo() -> None:
    tokens = np.asarray(gspo(*ARRAYS))
    close(tokens, np.where(MASK, np.array(EXAMPLES["gspo.seq"])[:, None], 0))
    plain = gspo(NEW, OLD, np.full(4, -1.0), MASK, **WIDE)
    close(plain, np.where(MASK, np.array(EXAMPLES["gspo.s"])[:, None], 0))


def test_worked_sequences_of_gmpo() -> None:
    ratio = -np.array(EXAMPLES["gmpo.ratio"]) * ADVANTAGES
    close(gmpo(*ARRAYS), np.where(MASK, ratio[:, None], 0))
    clipped = np.where(MASK, EXAMPLES["gmpo.lr"], 0).sum(1) / MASK.sum(1)
    close(np.exp(clipped), EXAMPLES["gmpo.ratio"])


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_14_the_clip_is_pessimistic_for_both_signs(
    ratio: float, advantage: float
) -> None:
    d, mask = np.float32(np.log(ratio)) * np.ones((1, 2), np.float32), np.ones((1, 2))
    clipped = (advantage > 0 and ratio > 1.2) or (advantage < 0 and ratio < 0.8)
    bound = min(max(ratio, 0.8), 1.2) if clipped else ratio

    def check(objective: Callable) -> None:
        value, grad = jax.value_and_grad(
            lambda x: objective(x, 0 * d, np.array([advantage]), mask).sum()
        )(d)
        close(value, -2 * advantage * bound)
        close(grad, np.full((1, 2), 0.0 if clipped else -advantage * ratio))

    check(partial(gspo, clip_low=0.2, clip_high=0.2))
    check(partial(gmpo, clip_low=-np.log(0.8), clip_high=np.log(1.2)))

    def inverted(x: Any, old: Any, a: Any, m: Any) -> jax.Array:
        s = jnp.exp((x - old).mean(1, keepdims=True)) + x - jax.lax.stop_gradient(x)
        return jnp.minimum(-a[:, None] * s, -a[:, None] * jnp.clip(s, 0.8, 1.2))

    if advantage < 0 and ratio != 1:
        breaks(check, inverted)


def test_19_a_response_does_not_weigh_by_its_length() -> None:
    expected = np.mean(own.gspo_sequences(*ARRAYS))

    def check(reduction: Callable) -> None:
        value, grad = slope(gspo, reduction)(X)
        close(value, expected)
        close(grad, EXAMPLES["gspo.grad"])

    check(sequence_mean)
    breaks(check, token_mean)


@both
def test_1_micro_batches_give_the_whole(objective: Callable) -> None:
    tokens = np.asarray(objective(*ARRAYS))
    whole = sequence_mean(tokens, MASK, COUNTS)

    def check(part: Callable) -> None:
        close(sum(part(tokens[p], MASK[p]) for p in (slice(1), slice(1, 4))), whole)

    check(lambda x, m: sequence_mean(x, m, COUNTS))
    # The mean of the rows at hand, and of those means.
    breaks(check, lambda x, m: sequence_mean(x, m, batch_counts(m)) / 2)


@both
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_17_large_log_ratios_stay_finite(objective: Callable, advantage: float) -> None:
    old = np.repeat(np.array([[100.0], [-100.0], [-100.0]], np.float32), 2, 1)
    mask = np.array([[1, 1], [1, 1], [0, 0]])
    a = np.full(3, advantage, np.float32)

    def check(objective: Callable) -> None:
        value, grad = slope(objective)(np.zeros((3, 2), np.float32), old, a, mask)
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        assert (np.asarray(grad)[2] == 0).all()

    check(objective)

    def mutant(x: Any, old: Any, a: Any, m: Any) -> jax.Array:
        return m * -a[:, None] * jnp.exp((x - old).mean(1, keepdims=True))

    breaks(check, mutant)


@both
def test_at_the_start_of_the_update_it_is_reinforce(objective: Callable) -> None:
    start = OLD.astype(np.float32)
    found = slope(objective)(start)
    expected = slope(lambda x, old, a, m: policy_gradient(x, a, m))(start)
    close(found[1], expected[1])
    close(found[0], -ADVANTAGES.mean())


@both
def test_advantages_of_a_sequence_are_broadcast_to_its_tokens(
    objective: Callable,
) -> None:
    a = np.repeat(ADVANTAGES[:, None], 4, 1)
    for found, expected in zip(
        slope(objective)(X, OLD, a), slope(objective)(X), strict=True
    ):
        close(found, expected)


def test_advantages_of_tokens_weigh_their_own_gradients() -> None:
    a = np.random.default_rng(0).normal(size=(4, 4))
    s, lengths = own.sequence_ratios(NEW, OLD, MASK), MASK.sum(1)
    grad = slope(partial(gspo, **WIDE))(X, OLD, a)[1]
    close(grad, np.where(MASK, -a * (s / lengths)[:, None] / 4, 0))


def test_the_two_differ_where_one_token_is_far_off() -> None:
    # One token's ratio is clipped by GMPO alone; GSPO sees the mean.
    new, old, mask = np.array([[2.0, -1.8]]), np.zeros((1, 2)), np.ones((1, 2))
    a = np.ones(1)
    grads = [
        np.asarray(jax.grad(lambda x, f=f: f(x, old, a, mask).sum())(jnp.array(new)))
        for f in (partial(gspo, clip_high=0.2), gmpo)
    ]
    assert (grads[0] != 0).all()
    assert (grads[1] != 0).tolist() == [[False, True]]


@both
def test_bounds_may_be_traced(objective: Callable) -> None:
    traced = jax.jit(lambda low, high: objective(*ARRAYS, clip_low=low, clip_high=high))
    close(traced(0.1, 0.2), objective(*ARRAYS, clip_low=0.1, clip_high=0.2))


@both
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_low": -0.1}, "clip_low must be finite and >= 0, got -0.1"),
        ({"clip_high": np.nan}, "clip_high must be finite and >= 0, got nan"),
        ({"old_logprobs": OLD[:2]}, r"old_logprobs \[2, 4\]"),
        ({"logprobs": NEW.astype(int)}, "logprobs must be a floating array, got int"),
        ({"advantages": ADVANTAGES[:3]}, r"shape \[4, 4\] like the mask or \[4\]"),
        ({"mask": MASK[0]}, "2 axes"),
    ],
)
def test_refusals(objective: Callable, change: dict[str, Any], message: str) -> None:
    names = ("logprobs", "old_logprobs", "advantages", "mask")
    with pytest.raises(ValueError, match=message):
        objective(**{**dict(zip(names, ARRAYS, strict=True)), **change})
