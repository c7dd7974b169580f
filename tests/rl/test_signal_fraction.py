"""Sampling until a fraction of the groups has signal."""

import dataclasses

import numpy as np
import pytest

from jaxrl_reason.rl.collect import NoSignalError, collect_groups
from jaxrl_reason.rl.method import DynamicSampling
from jaxrl_reason.rl.recipes.gpg import GPG
from tests.rl.helpers import (
    EndlessProblems,
    fake_rollouts,
)
from tests.rl.test_loop_parts import LIMIT

# A fraction of groups with signal.

RIGHT, WRONG, MIXED = [1, 1, 1], [0, 0, 0], [0, 1, 0]


def collect(rounds, fraction, max_rounds=4):
    drawn = iter(rounds)
    method = dataclasses.replace(
        GPG.build(LIMIT), dynamic_sampling=DynamicSampling(fraction=fraction)
    )
    return collect_groups(
        lambda problems, draw: fake_rollouts(
            next(drawn), first_id=problems[0].problem_id
        ),
        EndlessProblems(4),
        method,
        num_prompts=4,
        surplus=None,
        first_draw=0,
        max_rounds=max_rounds,
    )


def test_enough_signal_in_the_first_round_is_the_batch_as_it_came():
    found = collect([[RIGHT, MIXED, WRONG, MIXED]], fraction=0.5)
    assert found.rollouts.problem_ids.tolist() == [0, 1, 2, 3]
    assert (found.rounds, found.accepted, found.surplus) == (1, 2, None)


def test_rounds_go_on_until_the_share_has_signal_and_dull_groups_make_room():
    found = collect([[RIGHT, MIXED, WRONG, WRONG], [MIXED, WRONG, WRONG, MIXED]], 0.6)
    assert found.rounds == 2
    assert found.rollouts.problem_ids.tolist() == [0, 1, 4, 7]
    assert found.surplus is None


def test_a_share_that_is_never_reached_takes_what_there_is():
    rounds = [[WRONG, MIXED, WRONG, WRONG], [WRONG] * 4, [RIGHT] * 4]
    found = collect(rounds, 0.6, max_rounds=3)
    assert found.rollouts.problem_ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(NoSignalError, match="fill 3 groups with signal, got 0 of 8"):
        collect([[WRONG] * 4] * 2, 0.6, max_rounds=2)


def test_groups_with_signal_are_never_lost():
    rng = np.random.default_rng(0)
    for _ in range(200):
        signal = rng.random(rng.integers(4, 12)) < 0.5
        signal[rng.integers(len(signal))] = True  # with none there is no batch
        found = collect([[MIXED if x else WRONG for x in signal]], fraction=0.01)
        chosen = found.rollouts.problem_ids.tolist()
        rest = [] if found.surplus is None else found.surplus.problem_ids.tolist()
        assert len(chosen) == 4
        assert set(np.flatnonzero(signal)) <= set(chosen) | set(rest)
        assert signal[rest].all()


def test_the_newest_groups_without_signal_make_room():
    found = collect([[MIXED, WRONG, WRONG, MIXED, MIXED]], fraction=0.01)
    assert found.rollouts.problem_ids.tolist() == [0, 1, 3, 4]
    assert found.surplus is None
