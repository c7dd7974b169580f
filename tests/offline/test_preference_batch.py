"""Pairs as batches: where each response stands, and what is refused."""

import dataclasses

import numpy as np
import pytest

from jaxrl_reason.losses import dpo_loss
from jaxrl_reason.offline.preference_batch import Pair, pack_pairs
from jaxrl_reason.offline.preference_methods import (
    PreferenceMethod,
    dpo,
)
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    even_batches,
)
from tests.offline.pair_helpers import PAIRS, SETTINGS
from tests.rl.helpers import (
    OPTIMIZER,
    one_device,
    tiny_model,
)

# Packing.


def test_both_responses_of_a_pair_stand_in_one_row_side_by_side():
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    for x in (plan.micro, plan.row):
        np.testing.assert_array_equal(x[::2], x[1::2])
    np.testing.assert_array_equal(plan.slot[1::2], plan.slot[::2] + 1)
    assert set(plan.slot[::2] % 2) == {0}
    # 8 and 9 tokens, 8 and 10 share a row of 24; the pair of 16 has one of its own.
    assert plan.num_active == 3
    np.testing.assert_array_equal(
        batch.group_ids[plan.micro, plan.slot], np.arange(8) // 2
    )


def test_every_response_is_where_the_batch_says():
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    both = [(p.prompt, r) for p in PAIRS for r in (p.chosen, p.rejected)]
    starts = batch.starts[plan.micro, plan.slot]
    for i, (prompt, response) in enumerate(both):
        row = (plan.micro[i], plan.row[i])
        first, n = starts[i] - len(prompt) + 1, len(prompt) + len(response)
        inside = slice(first, first + n)
        assert batch.tokens[row][inside].tolist() == [*prompt, *response]
        assert batch.positions[row][inside].tolist() == list(range(n))
        assert set(batch.segment_ids[row][inside]) == {plan.slot[i] + 1}
        assert (batch.segment_ids[row] == plan.slot[i] + 1).sum() == n
    lengths = [len(r) for _, r in both]
    assert batch.mask[plan.micro, plan.slot].sum(1).tolist() == lengths
    assert batch.mask.sum() == sum(lengths)


def test_the_longest_pairs_fit():
    longest = [Pair([3] * 4, [7] * 8, [8] * 8)] * 4
    batch, plan = pack_pairs(SETTINGS, longest)
    assert plan.num_active == SETTINGS.num_micro == 4
    assert batch.mask.sum() == 64


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair([], [7], [8]), "prompt must have 1 to 4 tokens, got 0 in pair 1"),
        (Pair([3], [], [8]), "chosen must have 1 to 8 tokens, got 0 in pair 1"),
        (Pair([3], [7], [8] * 9), "rejected must have 1 to 8 tokens, got 9 in pair 1"),
        (Pair([3], [7, 1], [7, 1]), "must differ, got the same response in pair 1"),
    ],
)
def test_a_pair_that_cannot_be_learnt_from_is_refused(pair, message):
    with pytest.raises(ValueError, match=message):
        pack_pairs(SETTINGS, [PAIRS[0], pair])


def test_too_many_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs_per_update = 4 pairs, got 5"):
        pack_pairs(SETTINGS, [*PAIRS, PAIRS[0]])


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(SETTINGS) if f.name != "seed"]
)
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        dataclasses.replace(SETTINGS, **{name: 0})


def test_a_row_must_hold_a_pair_and_the_context_a_response():
    with pytest.raises(ValueError, match=r"\(24 tokens\), got 23"):
        dataclasses.replace(SETTINGS, row_width=23)
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        dataclasses.replace(SETTINGS, seed=-1)
    long = dataclasses.replace(SETTINGS, max_response=21, row_width=50)
    with pytest.raises(ValueError, match=r"context_length \(24\), got 25"):
        build_preference_learner(tiny_model(), dpo(), long, OPTIMIZER, one_device())


def test_a_method_asks_for_known_lengths_only():
    with pytest.raises(ValueError, match="must be among chosen_lengths"):
        PreferenceMethod("mine", dpo_loss, lengths=("lengths",))


def test_batches_are_even_and_lose_nothing():
    batches = even_batches(11, 4, np.random.default_rng(0))
    assert [len(b) for b in batches] == [4, 4, 3]
    assert sorted(np.concatenate(batches)) == list(range(11))
