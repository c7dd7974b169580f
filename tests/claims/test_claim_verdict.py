"""The verdict on a few seeds: golden intervals, and the error rates that it is for."""

import itertools

import numpy as np
import pytest

from jaxrl_reason.claims.claim_verdict import (
    FAMILY,
    FAMILY_LEVEL,
    LEVEL,
    Effect,
    Verdict,
    excess_effect,
    judge,
    paired_effect,
    seed_noise,
)

pytestmark = pytest.mark.fast

SEEDS = 5
# Noise of one arm with standard deviation 1: also skewed, heavy, and of two values.
NOISE = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape) / 2.161,
    "t with 3 degrees": lambda rng, shape: rng.standard_t(3, shape) / 3**0.5,
    "uniform": lambda rng, shape: rng.uniform(0, 12**0.5, shape),
    "a fifth collapses": lambda rng, shape: (
        0.3 * rng.standard_normal(shape) - 2.38 * (rng.random(shape) < 0.2)
    ),
}


def test_the_interval_is_students():
    # d = 1, 2, 3, 4, 5: mean 3, s = 1.58114, t = 2.13185 for 4 degrees and 5%.
    found = paired_effect([2, 4, 6, 8, 10], [1, 2, 3, 4, 5], level=0.05)
    half = 2.131847 * 1.581139 / 5**0.5
    assert found.mean == 3
    assert found.high - found.mean == pytest.approx(half, rel=1e-6)
    assert found.mean - found.low == pytest.approx(half, rel=1e-6)
    fewer = paired_effect([2, 4, 6], [1, 2, 3], direction=-1)
    assert fewer.mean == -2
    assert LEVEL == FAMILY_LEVEL / FAMILY


def test_a_number_that_is_not_known_leaves_it_open():
    found = paired_effect([1.0, np.nan, 3.0], [0.0, 0.0, 0.0])
    assert np.isnan(found.low)
    assert judge(found, 1.0) is Verdict.UNRESOLVED


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 2.0, Verdict.SHOWN),
        (0.1, 1.0, Verdict.SHOWN),
        (0.1, 0.9, Verdict.REFUTED),
        (-3.0, 0.9, Verdict.REFUTED),
        (-0.1, 2.0, Verdict.UNRESOLVED),
        (0.0, 2.0, Verdict.UNRESOLVED),
    ],
)
def test_where_the_interval_lies(low, high, verdict):
    assert judge(Effect((low + high) / 2, low, high, SEEDS), 1.0) is verdict


def test_a_control_that_shows_the_effect_leaves_it_open():
    effect = Effect(3.0, 2.0, 4.0, SEEDS)
    nothing, excess = Effect(0.0, -9.0, 9.0, SEEDS), Effect(3.0, 1.0, 5.0, SEEDS)
    assert judge(effect, 1.0, [(nothing, excess)]) is Verdict.SHOWN
    shows = Effect(1.0, 0.5, 1.5, SEEDS)
    assert judge(effect, 1.0, [(nothing, excess), (shows, excess)]) is (
        Verdict.UNRESOLVED
    )
    as_much = Effect(1.0, -0.1, 2.1, SEEDS)
    assert judge(effect, 1.0, [(nothing, as_much)]) is Verdict.UNRESOLVED
    # It does not save a claim whose effect is too small.
    assert judge(Effect(0.1, 0.0, 0.2, SEEDS), 1.0, [(shows, as_much)]) is (
        Verdict.REFUTED
    )


def test_the_excess_is_paired_by_seed():
    rng = np.random.default_rng(0)
    seed, a, b = rng.standard_normal((3, 8))
    claimed, control = (3 + seed + 0.1 * a, np.zeros(8)), (seed + 0.1 * b, np.zeros(8))
    found = excess_effect(claimed, control)
    assert found.high - found.low < 1
    back = excess_effect(claimed[::-1], control[::-1], direction=-1)
    np.testing.assert_allclose([back.low, back.high], [found.low, found.high])


def test_noise_is_that_of_halves():
    x = np.random.default_rng(1).standard_normal(7)
    halves = [np.array(c) for c in itertools.combinations(range(7), 3)]
    apart = [x[h].mean() - np.delete(x, h).mean() for h in halves]
    assert seed_noise(x) == pytest.approx(np.sqrt(np.mean(np.square(apart))))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], [[1.0], [2.0], [3.0]]])
def test_too_few_seeds_are_refused(wrong):
    with pytest.raises(ValueError, match="seed"):
        paired_effect(wrong, wrong)


def shown(rng, noise, effect, claims, smallest=1.0, seeds=SEEDS):
    """How many claims are shown whose arms differ by `effect`."""
    arms = noise(rng, (claims, 2, seeds))
    found = [paired_effect(a + effect, b) for a, b in arms]
    return sum(judge(one, smallest) is Verdict.SHOWN for one in found)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_of_a_hundred_claims_without_an_effect_at_most_five_are_shown(noise):
    for seed in range(3):
        assert shown(np.random.default_rng(seed), noise, 0.0, 100) <= 5


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_of_twenty_effects_of_the_stated_size_sixteen_are_shown(noise):
    # The size that counts has to be chosen for the noise: six standard deviations of
    # an arm for 5 seeds, four for 8 (docs/claims.md).
    for seed in range(3):
        rng = np.random.default_rng(seed)
        assert shown(rng, noise, 6.0, 20, smallest=6.0) >= 16
        assert shown(rng, noise, 4.0, 20, smallest=4.0, seeds=8) >= 16
