"""Streams that go by outcomes: what they deal out, and that they resume."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest

from jaxrl_reason.data.adaptive_streams import EasyPoolStream, HistoryResampling
from jaxrl_reason.data.pass_rates import PassRates, kept_ids, with_ids
from jaxrl_reason.data.strategies import (
    LIGHT_R1_BAND,
    accuracy_band,
    hard_set,
    mixed_outcomes,
    not_solved,
)
from jaxrl_reason.rl.problem_batches import AdaptiveBatches

SAMPLES = 8


@dataclass(frozen=True)
class Numbered:
    problem_id: int


PROBLEMS = [Numbered(10 + i) for i in range(11)]
IDS = [p.problem_id for p in PROBLEMS]
STREAMS = [HistoryResampling, partial(EasyPoolStream, alpha=0.5)]


def ids_of(batch: Any) -> list[int]:
    return [p.problem_id for p in batch]


def flat(batches: Any) -> list[int]:
    return list(chain.from_iterable(batches))


def history(problems: Any = PROBLEMS, size: int = 3, seed: int = 0) -> Any:
    return HistoryResampling(problems, batch_size=size, seed=seed)


def pool(problems: Any = PROBLEMS, size: int = 3, seed: int = 0, **more: Any) -> Any:
    return EasyPoolStream(problems, batch_size=size, seed=seed, **more)


def steps(stream: Any, count: int, right: Callable[[int, int], int]) -> list[list[int]]:
    """Batches, each observed before the next: right answers of (id, step)."""
    out = []
    for step in range(count):
        ids = ids_of(next(stream))
        stream.observe(ids, [right(i, step) for i in ids], SAMPLES)
        out.append(ids)
    return out


def by_luck(i: int, step: int) -> int:
    return [0, SAMPLES, SAMPLES, 3][(7 * i + 3 * step) % 4]


@pytest.mark.parametrize("make", STREAMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_batches_hold_distinct_problems_and_never_shrink(make: Any, seed: int) -> None:
    for size in (3, 11):
        stream = make(PROBLEMS, batch_size=size, seed=seed)
        assert isinstance(stream, AdaptiveBatches)
        for ids in steps(stream, 25, by_luck):
            assert len(set(ids)) == len(ids) == size
            assert set(ids) <= set(IDS)


@pytest.mark.parametrize("make", STREAMS)
def test_a_resumed_stream_goes_on_as_the_other(make: Any) -> None:
    make = partial(make, PROBLEMS, batch_size=4, seed=5)
    straight = steps(make(), 20, by_luck)
    for stop in (0, 1, 7, 18):
        stream = make()
        steps(stream, stop, by_luck)
        state = json.loads(json.dumps(stream.get_state()))
        again = make()
        steps(again, 3, by_luck)  # whatever it did before
        again.set_state(state)
        assert again.get_state() == stream.get_state()
        later = steps(again, 20 - stop, lambda i, step, n=stop: by_luck(i, step + n))
        assert later == straight[stop:]


@pytest.mark.parametrize(
    ("make", "forgotten"),
    [(STREAMS[0], "history"), (STREAMS[1], "pool"), (STREAMS[1], "waiting")],
)
def test_a_resume_that_forgets_the_outcomes_would_not(
    make: Any, forgotten: str
) -> None:
    # Trap 40, kept as a mutant.
    make = partial(make, PROBLEMS, batch_size=4, seed=5)
    empty = make().get_state()
    straight, found = steps(make(), 20, by_luck), []
    for stop in (5, 10):
        stream = make()
        steps(stream, stop, by_luck)
        stream.set_state(stream.get_state() | {forgotten: empty[forgotten]})
        later = steps(stream, 20 - stop, lambda i, step, n=stop: by_luck(i, step + n))
        found.append(later == straight[stop:])
    assert not all(found)


@pytest.mark.parametrize("make", STREAMS)
def test_seed_and_outcomes_decide_and_nothing_else(make: Any) -> None:
    def run(seed: int, right: Any) -> list[list[int]]:
        return steps(make(PROBLEMS, batch_size=3, seed=seed), 15, right)

    assert run(0, by_luck) == run(0, by_luck)
    assert run(0, by_luck) != run(1, by_luck)
    assert run(0, by_luck) != run(0, lambda i, step: by_luck(i, step + 1))


@pytest.mark.parametrize("make", STREAMS)
def test_bad_input_is_named(make: Any) -> None:
    with pytest.raises(ValueError, match="at least as many, got 11"):
        make(PROBLEMS, batch_size=12, seed=0)
    with pytest.raises(ValueError, match="seed >= 0, got 2 and -1"):
        make(PROBLEMS, batch_size=2, seed=-1)
    with pytest.raises(ValueError, match="ids must differ, got 11 ids of 12"):
        make([*PROBLEMS, PROBLEMS[0]], batch_size=2, seed=0)
    stream = make(PROBLEMS, batch_size=2, seed=0)
    with pytest.raises(ValueError, match=r"of this stream, got \[3\]"):
        stream.observe([10, 3], [0, 0], 8)
    other = make(PROBLEMS, batch_size=3, seed=0)
    with pytest.raises(ValueError, match="batch_size 2, got 3"):
        stream.set_state(other.get_state())


# SRPO's history.


def test_an_epoch_drops_what_was_always_right_and_keeps_the_rest() -> None:
    eight = PROBLEMS[:8]
    outcome = dict(zip(ids_of(eight), [8, 0, 3, 8, 7, 8, 0, 0], strict=True))
    stream = history(eight, size=2)
    first = steps(stream, 4, lambda i, step: outcome[i])
    assert sorted(flat(first)) == ids_of(eight)
    second = steps(stream, 2, lambda i, step: outcome[i])
    # Five are left, of which an epoch of two batches leaves one out.
    wrong = {i for i, right in outcome.items() if right < SAMPLES}
    assert len(set(flat(second))) == 4
    assert set(flat(second)) < wrong
    assert stream.get_state()["active"] == sorted(wrong)


def test_dropping_what_was_always_wrong_too_would_be_dynamic_sampling() -> None:
    # Kept as a mutant: `mixed_outcomes` at the end of an epoch.
    counts = np.array([8, 0, 3, 8, 7, 8, 0, 0])
    assert not_solved(counts, 8).sum() == 5
    assert mixed_outcomes(counts, 8).sum() == 2


def test_what_an_epoch_left_out_is_not_dropped() -> None:
    stream = history(size=4)  # 11 problems: three are left out of each epoch
    seen = set(flat(steps(stream, 2, lambda i, step: SAMPLES)))
    assert len(seen) == 8
    # Only three were not seen, too few for a batch: all come back.
    assert steps(stream, 1, by_luck)
    assert stream.get_state()["active"] == IDS
    stream = history(size=3)
    seen = set(flat(steps(stream, 3, lambda i, step: SAMPLES * (i > 12))))
    steps(stream, 1, by_luck)
    left = {i for i in IDS if i not in seen or i <= 12}
    assert stream.get_state()["active"] == sorted(left)


def test_when_all_is_solved_the_history_starts_anew() -> None:
    stream = history(size=11)
    for _ in range(3):
        (ids,) = steps(stream, 1, lambda i, step: SAMPLES)
        assert sorted(ids) == IDS


def test_visits_of_an_epoch_count_together_and_late_ones_in_the_next() -> None:
    four = PROBLEMS[:4]
    stream = history(four, size=2)
    first, second = ids_of(next(stream)), ids_of(next(stream))
    stream.observe(first, [8, 8], 8)
    stream.observe(first[:1], [7], 8)  # another round: right, but not always
    third = ids_of(next(stream))  # before the second batch was observed
    active = set(stream.get_state()["active"])
    assert active == {first[0], *second}
    stream.observe([*second, *third], [8] * 4, 8)
    next(stream)  # of three, one batch: the epoch ends, and all was right
    assert stream.get_state()["epoch"] == 2


def test_an_answer_that_nobody_judged_is_no_outcome() -> None:
    stream = history(PROBLEMS[:3], size=3)
    ids = ids_of(next(stream))
    stream.observe(ids, [0, 8, 4], [0, 8, 4])
    next(stream)
    # Never judged, then one always right and one always right of those judged.
    assert stream.get_state()["active"] == sorted(ids)  # too few: all come back
    stream = history(PROBLEMS[:3], size=1)
    for right, judged in ((0, 0), (8, 8), (4, 8)):
        stream.observe(ids_of(next(stream)), [right], [judged])
    order = history(PROBLEMS[:3], size=1)
    first, _, third = (ids_of(next(order))[0] for _ in range(3))
    next(stream)
    assert stream.get_state()["active"] == sorted([first, third])


# MiMo's pool.


def test_without_a_pool_the_passes_are_those_of_the_plain_stream() -> None:
    stream = pool(size=3, alpha=0.0)
    found = steps(stream, 6, lambda i, step: SAMPLES)
    for batches in (found[:3], found[3:]):  # a pass has three batches of 11 problems
        assert len(set(flat(batches))) == 9
    assert set(stream.get_state()["pool"]["members"]) == set(flat(found))


def test_a_tenth_of_the_draws_comes_from_the_pool() -> None:
    problems = [Numbered(i) for i in range(400)]
    stream = pool(problems, size=8, seed=2)
    easy = set(range(20))
    stream.observe(sorted(easy), [SAMPLES] * 20, SAMPLES)
    draws = flat(ids_of(next(stream)) for _ in range(50))  # one pass
    fraction = np.mean([i in easy for i in draws])
    usual = 20 / 400
    expected = 0.1 + 0.9 * usual
    assert abs(fraction - expected) < 3 * np.sqrt(
        expected * (1 - expected) / len(draws)
    )


def test_no_problem_of_the_passes_is_lost() -> None:
    stream = pool(size=3, alpha=0.6, seed=4)
    stream.observe(IDS[:5], [SAMPLES] * 5, SAMPLES)
    dealt: Counter = Counter()
    for _ in range(60):
        dealt.update(ids_of(next(stream)))
    state = stream.get_state()
    # What the passes dealt out is in a batch or waits; the rest came from the pool.
    replay = pool(size=3, alpha=0.0, seed=4)
    passes: Counter = Counter()
    for _ in range(state["stream"]["next_batch"]):
        passes.update(ids_of(next(replay)))
    for i in IDS:
        waits = state["waiting"].count(i)
        assert dealt[i] >= passes[i] - waits
        if i not in IDS[:5]:
            assert dealt[i] == passes[i] - waits
    assert len(state["waiting"]) <= 6


def test_the_pool_forgets_what_is_no_longer_always_right() -> None:
    stream = pool()
    assert stream.observe([10, 11, 12], [8, 8, 7], 8) == {"data/problems_pool": 2}
    assert stream.observe([10, 11], [7, 0], [8, 0]) == {"data/problems_pool": 1}


def test_the_pool_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.5"):
        pool(alpha=1.5)
    with pytest.raises(ValueError, match="ids must be >= 0, got -1"):
        pool([Numbered(i) for i in range(-1, 5)])


# Fixed pass rates.

RATES = PassRates(
    np.array(IDS[:6]), np.array([0, 3, 4, 24, 40, 64]), np.array([64] * 6)
)


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (mixed_outcomes, [11, 12, 13, 14]),
        (partial(accuracy_band, low=LIGHT_R1_BAND[0], high=LIGHT_R1_BAND[1]), [13, 14]),
        (hard_set, [10, 11]),
        (not_solved, [10, 11, 12, 13, 14]),
    ],
)
def test_a_stream_over_what_a_rule_keeps(rule: Any, wanted: list[int]) -> None:
    ids = kept_ids(RATES, rule)
    assert ids == wanted
    assert json.loads(json.dumps(ids)) == wanted
    stream = history(with_ids(PROBLEMS, ids), size=2)
    assert set(flat(steps(stream, len(wanted) // 2, by_luck))) <= set(wanted)


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(ValueError, match=r"of the 11 problems, got \[3\]"):
        with_ids(PROBLEMS, [10, 3])
