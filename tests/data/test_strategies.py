"""Which prompts each published strategy keeps, and a pool that resumes."""

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from jaxrl_reason.data.strategies import (
    LIGHT_R1_BAND,
    PRIME_BAND,
    EasyPool,
    accuracy_band,
    hard_set,
    mixed_outcomes,
    not_solved,
    resample_history,
)
from tests.losses.worked import EXAMPLES

# The worked examples: success of four samples per prompt.
OUTCOMES = np.array(
    [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
)
COUNTS = OUTCOMES.sum(1), 4


def band(limits: tuple[float, float]) -> Callable:
    return lambda c, n: accuracy_band(c, n, low=limits[0], high=limits[1])


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("dapo", mixed_outcomes),
        ("srpo", not_solved),
        ("light", band(LIGHT_R1_BAND)),
        ("prime", band(PRIME_BAND)),
        ("orz_hard", hard_set),
    ],
)
def test_worked_filters(name: str, rule: Callable) -> None:
    np.testing.assert_array_equal(OUTCOMES.mean(1), EXAMPLES["flt.rate"])
    assert np.flatnonzero(rule(*COUNTS)).tolist() == EXAMPLES[f"flt.{name}"]


def test_worked_dynamic_sampling() -> None:
    rounds = [
        np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]),
        np.array([[0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 1, 0]]),
    ]
    pool: list[list[int]] = []
    used = 0
    while len(pool) < 3:
        kept = mixed_outcomes(rounds[used].sum(1), 4)
        pool += rounds[used][kept].tolist()
        used += 1
    assert pool[:3] == EXAMPLES["ds.kept"]
    assert (used, len(pool) - 3) == (EXAMPLES["ds.rounds"], EXAMPLES["ds.leftover"])


def test_24_the_filter_looks_at_counts_and_not_at_the_mean_of_signed_rewards() -> None:
    # A library kept groups with a mean reward in (0, 1), with rewards of +1 and -1.
    def check(keep: Callable) -> None:
        assert np.flatnonzero(keep(OUTCOMES)).tolist() == [1, 2, 3]

    check(lambda right: mixed_outcomes(right.sum(1), 4))

    def mean_of_signed(right: np.ndarray) -> np.ndarray:
        mean = (2 * right - 1).mean(1)
        return (mean > 0) & (mean < 1)

    with pytest.raises(AssertionError):
        check(mean_of_signed)


def test_skywork_and_orz_at_their_own_sizes() -> None:
    every = np.arange(17)
    assert np.flatnonzero(mixed_outcomes(every, 16)).tolist() == list(range(1, 16))
    assert np.flatnonzero(hard_set(np.arange(65), 64)).tolist() == [0, 1, 2, 3]
    # The same fraction of other numbers of samples: 1 of 16 is 4 of 64 and is out.
    assert np.flatnonzero(hard_set(every, 16)).tolist() == [0]
    assert np.flatnonzero(accuracy_band(every, 16, low=0, high=0.9))[-1] == 14


def test_ends_of_a_band_are_kept_exactly() -> None:
    def check(keep: Callable) -> None:
        assert keep(np.array([0, 1, 2, 3, 4, 5]), 5).tolist() == [0, 1, 1, 1, 1, 0]

    check(band(PRIME_BAND))

    def in_float32(c: np.ndarray, n: int) -> np.ndarray:
        rates = c.astype(np.float32) / np.float32(n)
        return (rates.astype(np.float64) >= 0.2) & (rates.astype(np.float64) <= 0.8)

    with pytest.raises(AssertionError):
        check(in_float32)


def test_prompts_without_samples() -> None:
    none = np.array([0, 0]), np.array([0, 4])
    assert mixed_outcomes(*none).tolist() == [False, False]
    assert accuracy_band(*none, low=0, high=1).tolist() == [False, True]
    assert hard_set(*none).tolist() == [False, True]
    assert not_solved(*none).tolist() == [True, True]
    assert mixed_outcomes([], 4).tolist() == []


def test_history_adds_up_the_visits_of_an_epoch() -> None:
    ids = [30, 10, 20, 30, 40, 10]
    right = [4, 0, 4, 4, 1, 4]
    # 30: right twice; 20: right once; 10 was wrong at first, 40 is mixed.
    assert resample_history(ids, right, 4).tolist() == [10, 40]
    samples = [4, 4, 4, 4, 4, 4]
    assert resample_history(ids, right, samples).tolist() == [10, 40]
    assert resample_history([], [], 4).tolist() == []
    # Dropping what was all wrong as well is dynamic sampling, not SRPO.
    assert resample_history([1, 2], [0, 4], 4).tolist() == [1]


def test_the_pool_takes_what_is_solved_and_lets_go_what_is_not() -> None:
    pool = EasyPool(seed=1).updated([5, 6, 7, 8], [4, 4, 3, 0], 4)
    assert pool.members == (5, 6)
    pool = pool.updated([6, 8, 5], [2, 4, 0], np.array([4, 4, 0]))
    assert pool.members == (5, 8)  # 5 had no samples and stays
    assert pool.updated([5], [4], 4).members == (5, 8)


def test_draws_are_of_the_pool_without_a_repeat() -> None:
    pool = EasyPool(seed=0, members=tuple(range(100, 160)))
    drawn = 0
    for _ in range(60):
        ids, pool = pool.drawn(64, alpha=0.1)
        easy = ids[ids >= 0]
        assert len(set(easy.tolist())) == len(easy)
        assert set(easy.tolist()) <= set(pool.members)
        drawn += len(easy)
    # 3840 draws with probability 0.1: five standard deviations are 93.
    assert abs(drawn - 384) < 93
    assert pool.draws == 60
    assert (pool.drawn(9, alpha=0.0)[0] == -1).all()
    ids, _ = EasyPool(seed=0, members=(1, 2)).drawn(5, alpha=1.0)
    assert sorted(ids.tolist()) == [-1, -1, -1, 1, 2]
    assert (EasyPool(seed=0).drawn(5, alpha=1.0)[0] == -1).all()


def test_40_a_resumed_pool_draws_the_same() -> None:
    pool = EasyPool(seed=3, members=tuple(range(50)))
    for _ in range(3):
        _, pool = pool.drawn(20, alpha=0.5)

    def check(resume: Callable[[EasyPool], EasyPool]) -> None:
        again = resume(pool)
        assert again == pool
        assert (
            again.drawn(20, alpha=0.5)[0].tolist()
            == pool.drawn(20, alpha=0.5)[0].tolist()
        )

    check(lambda p: EasyPool(**json.loads(json.dumps(dataclasses.asdict(p)))))
    with pytest.raises(AssertionError):
        check(lambda p: dataclasses.replace(p, draws=0))
    other = dataclasses.replace(pool, seed=4)
    assert (
        other.drawn(20, alpha=0.5)[0].tolist() != pool.drawn(20, alpha=0.5)[0].tolist()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed_outcomes([5], 4), "0 <= num_correct <= num_samples"),
        (lambda: mixed_outcomes([-1], 4), "0 <= num_correct <= num_samples"),
        (lambda: mixed_outcomes([0.5], 4), "num_correct must be whole numbers"),
        (lambda: mixed_outcomes(OUTCOMES, 4), r"num_correct must be \[P\]"),
        (lambda: mixed_outcomes([1, 2], [4]), r"num_samples \[P\] or one number"),
        (lambda: accuracy_band([1], 4, low=0.8, high=0.2), "0 <= low <= high <= 1"),
        (lambda: hard_set([1], 4, below=5, of=4), "1 <= below <= of, got 5, 4"),
        (lambda: resample_history([1, 2], [4], 4), "problem_ids must be one per group"),
        (lambda: EasyPool(seed=0).updated([1, 2], [4], 4), "one per group"),
        (lambda: EasyPool(seed=-1), "seed and draws must be >= 0"),
        (lambda: EasyPool(seed=0).drawn(4, alpha=1.5), "alpha in"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
