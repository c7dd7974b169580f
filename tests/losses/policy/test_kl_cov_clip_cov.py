"""KL-Cov and Clip-Cov: which tokens, chosen where, and what is done to them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    clip_cov,
    clip_cov_tokens,
    clipped_surrogate,
    kl_cov,
    kl_cov_tokens,
    token_covariance,
    token_mean,
)
from tests.losses import reference_objectives as own
from tests.losses.battery import random_batch
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, OLD, close

A = np.array([[2.0, -1.0, 0.5, -1.5, 1.0, -1.0]])
LOGPROBS = np.array([[-0.1, -2.0, -0.5, -3.0, -0.2, -0.6]])
BEFORE = np.array([[-0.3, -1.8, -0.5, -2.5, -0.4, -0.7]])
ALL = np.ones((1, 6))
COUNTS = batch_counts(ALL)
KEY = jax.random.key(0)
PARTS = [slice(i, i + 2) for i in (0, 2, 4, 6)]


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def test_worked_covariance() -> None:
    close(token_covariance(LOGPROBS, A, ALL), [EXAMPLES["cov.c"]])


def test_worked_kl_cov() -> None:
    chosen = kl_cov_tokens(LOGPROBS, A, ALL, fraction=0.34)
    assert int(np.sum(chosen)) == EXAMPLES["cov.k"]
    assert np.flatnonzero(chosen).tolist() == EXAMPLES["cov.idx"]
    for given in ({"fraction": 0.34}, {"selected": chosen}):
        tokens = kl_cov(LOGPROBS, BEFORE, A, ALL, **given)
        close(token_mean(tokens, ALL, COUNTS), EXAMPLES["cov.klloss"])
    plain = kl_cov(LOGPROBS, BEFORE, A, ALL, coef=0.0)
    close(token_mean(plain, ALL, COUNTS), EXAMPLES["cov.base"])


def test_worked_clip_cov() -> None:
    band = clip_cov_tokens(LOGPROBS, BEFORE, A, ALL, fraction=1.0, key=KEY)
    assert np.flatnonzero(band).tolist() == EXAMPLES["cov.band"]
    first = np.array([[1, 0, 0, 0, 0, 0]])
    tokens = clip_cov(LOGPROBS, BEFORE, A, ALL, selected=first)
    close(token_mean(tokens, ALL, COUNTS), EXAMPLES["cov.cliploss_first"])


@pytest.mark.parametrize("fraction", [0.001, 0.2, 1.0])
def test_the_tokens_of_highest_covariance(fraction: float) -> None:
    choose = jax.jit(kl_cov_tokens)
    for seed in range(4):
        b = random_batch(seed)
        covariance = own.covariance(b.x, b.advantages, b.mask)
        close(token_covariance(b.x, b.advantages, b.mask), covariance)
        found = np.asarray(choose(b.x, b.advantages, b.mask, fraction=fraction))
        np.testing.assert_array_equal(found, own.top(covariance, b.mask, fraction))


def test_18_tokens_are_chosen_over_the_mini_batch() -> None:
    b = random_batch(0)
    counts = batch_counts(b.mask)
    arrays = (b.x, b.old, b.advantages, b.mask)
    kl_tokens = kl_cov_tokens(b.x, b.advantages, b.mask, fraction=0.3)
    band = {"low": 0.1, "high": 9.0, "fraction": 0.3, "key": KEY}
    clip_tokens = clip_cov_tokens(*arrays, **band)
    assert np.sum(kl_tokens) > 1

    def check(f: Callable, chosen: Any, part: Callable) -> None:
        def total(x: jax.Array) -> jax.Array:
            """The sum of the parts of micro-batches."""
            return sum(
                token_mean(
                    part(x[p], *(y[p] for y in arrays[1:]), chosen[p]),
                    b.mask[p],
                    counts,
                )
                for p in PARTS
            )

        def whole(x: jax.Array) -> jax.Array:
            return token_mean(f(x, *arrays[1:]), b.mask, counts)

        for found, expected in zip(
            jax.value_and_grad(total)(b.x), jax.value_and_grad(whole)(b.x), strict=True
        ):
            close(found, expected)

    def given(f: Callable) -> Callable:
        return lambda *rows: f(*rows[:4], selected=rows[4])

    def inside(f: Callable, **settings: Any) -> Callable:
        return lambda *rows: f(*rows[:4], **settings)

    whole_kl = partial(kl_cov, fraction=0.3)
    whole_clip = partial(clip_cov, **band)
    check(whole_kl, kl_tokens, given(kl_cov))
    check(whole_clip, clip_tokens, given(clip_cov))
    # Chosen inside each micro-batch.
    breaks(partial(check, whole_kl, kl_tokens), inside(kl_cov, fraction=0.3))
    breaks(partial(check, whole_clip, clip_tokens), inside(clip_cov, **band))


def test_18_the_key_decides() -> None:
    b = random_batch(3)
    arrays = (b.x, b.old, b.advantages, b.mask)

    @jax.jit
    def draw(key: jax.Array) -> jax.Array:
        return clip_cov_tokens(*arrays, fraction=0.1, low=-9.0, high=9.0, key=key)

    first, again = draw(KEY), draw(KEY)
    np.testing.assert_array_equal(first, again)
    others = [np.asarray(draw(jax.random.key(i))) for i in range(1, 6)]
    assert any((other != np.asarray(first)).any() for other in others)


def test_the_draw_is_uniform_over_the_band() -> None:
    # Five tokens inside the band, one drawn a key.
    settings = {"low": -1.0, "high": 2.5, "fraction": 1 / 6}

    @jax.jit
    def frequencies(keys: jax.Array) -> jax.Array:
        draw = lambda k: clip_cov_tokens(LOGPROBS, BEFORE, A, ALL, key=k, **settings)  # noqa: E731
        return jnp.mean(jax.vmap(draw)(keys) * 1.0, axis=0)[0]

    found = np.asarray(frequencies(jax.random.split(KEY, 2000)))
    assert found[3] == 0  # covariance 2.9
    close(found.sum(), 1.0)
    close(np.delete(found, 3), np.full(5, 0.2), rtol=0, atol=0.04)


def test_padding_does_not_change_the_draw() -> None:
    b = random_batch(4)
    arrays = (b.x, b.old, b.advantages, b.mask)
    settings = {"fraction": 0.2, "low": -9.0, "high": 9.0, "key": KEY}
    wide = [np.pad(x, [(2, 1), (0, 3)]) for x in arrays]
    found = np.asarray(clip_cov_tokens(*wide, **settings))
    expected = np.asarray(clip_cov_tokens(*arrays, **settings))
    np.testing.assert_array_equal(found[2:10, :6], expected)
    assert found.sum() == expected.sum() == max(1, int(0.2 * b.mask.sum()))


def test_tokens_that_ppo_clips_are_left_out() -> None:
    settings = {"fraction": 1.0, "low": -9.0, "high": 9.0, "key": KEY}
    clips = {"clip_low": 0.15, "clip_high": 0.2}
    found = clip_cov_tokens(LOGPROBS, BEFORE, A, ALL, **settings, **clips)
    ratio = np.exp(LOGPROBS - BEFORE)
    clipped = ((A > 0) & (ratio > 1.2)) | ((A < 0) & (ratio < 0.85))
    assert clipped.sum() == 4
    np.testing.assert_array_equal(found, ~clipped)


def test_an_empty_band_changes_nothing() -> None:
    tokens = clip_cov(LOGPROBS, BEFORE, A, ALL, low=50.0, high=60.0, key=KEY)
    wide = {"clip_low": 1.0, "clip_high": 1.0}
    close(tokens, clipped_surrogate(LOGPROBS, BEFORE, A, ALL, **wide))


def test_20_the_penalty_does_not_push_at_ratio_1() -> None:
    start, chosen = OLD.astype(np.float32), np.asarray(MASK)

    def slope(f: Callable) -> np.ndarray:
        return np.asarray(jax.grad(lambda x: f(x).sum())(start))

    plain = slope(lambda x: kl_cov(x, OLD, ADVANTAGES, MASK, coef=0.0))

    def check(objective: Callable) -> None:
        close(slope(objective), plain)

    check(lambda x: kl_cov(x, OLD, ADVANTAGES, MASK, selected=chosen))
    check(lambda x: kl_cov(x, OLD, ADVANTAGES, MASK))

    def mutant(x: jax.Array) -> jax.Array:
        penalty = jnp.abs(jnp.where(MASK, x - OLD, 0.0))
        return kl_cov(x, OLD, ADVANTAGES, MASK, coef=0.0) + penalty

    breaks(check, mutant)


def test_the_penalty_pulls_towards_the_old_policy() -> None:
    chosen = np.zeros_like(MASK)
    chosen[0, :2] = 1
    grads = [
        np.asarray(
            jax.grad(
                lambda x, c=coef: kl_cov(
                    x, OLD, ADVANTAGES, MASK, coef=c, selected=chosen
                ).sum()
            )(NEW.astype(np.float32))
        )
        for coef in (0.5, 0.0)
    ]
    close(grads[0] - grads[1], 0.5 * chosen * np.sign(NEW - OLD))


def test_17_large_log_ratios_stay_finite() -> None:
    old = np.array([[0.0, -100.0, 100.0, -100.0]], np.float32)
    mask = np.array([[1, 1, 1, 0]])
    for objective in (kl_cov, partial(clip_cov, key=KEY, low=-99.0, high=99.0)):
        for advantage in (1.0, -1.0):
            value, grad = jax.value_and_grad(
                lambda x, f=objective, a=advantage: f(x, old, np.full(1, a), mask).sum()
            )(np.zeros((1, 4), np.float32))
            assert np.isfinite(value)
            assert np.isfinite(grad).all()
            assert np.asarray(grad)[0, 3] == 0


def test_the_choice_is_a_constant() -> None:
    covariance = jax.grad(lambda x: token_covariance(x, A, ALL).sum() ** 2)
    assert (np.asarray(covariance(LOGPROBS.astype(np.float32))) == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(kl_cov, fraction=0.0), r"fraction must be in \(0, 1\], got 0.0"),
        (partial(kl_cov, coef=-1.0), "coef must be finite and >= 0, got -1.0"),
        (partial(kl_cov, selected=ALL[0]), r"selected \[6\], mask \[1, 6\]"),
        (clip_cov, "key must be given without selected, got None"),
        (partial(clip_cov, key=KEY, fraction=2.0), r"fraction must be in \(0, 1\]"),
        (partial(clip_cov, key=KEY, low=5.0), "high must be > low, 5.0, got 5.0"),
        (partial(clip_cov, key=KEY, low=np.nan), "low must be finite, got nan"),
        (partial(clip_cov, key=KEY, clip_low=-1.0), "clip_low must be finite and >= 0"),
        (partial(clip_cov, selected=ALL.T), r"selected \[6, 1\], mask \[1, 6\]"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(LOGPROBS, BEFORE, A, ALL)


def test_refusals_of_arrays() -> None:
    with pytest.raises(ValueError, match=r"logprobs \[1, 6\], mask \[1, 3\]"):
        token_covariance(LOGPROBS, A, ALL[:, :3])
    with pytest.raises(ValueError, match="logprobs must be a floating array"):
        kl_cov_tokens(LOGPROBS.astype(int), A, ALL)
    with pytest.raises(ValueError, match=r"old_logprobs \[1, 3\]"):
        clip_cov_tokens(LOGPROBS, BEFORE[:, :3], A, ALL, key=KEY)
