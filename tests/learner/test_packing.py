import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxrl_reason.learner.packing import (
    PackingShape,
    pack_sequences,
    plan_packing,
)
from jaxrl_reason.rl.rollouts import concatenate
from tests.rl.helpers import fake_rollouts, pack_inputs

SHAPE = PackingShape(rows=2, width=8, slots=3)


def rows_for(lengths, shape):
    """Micro-batches enough for one sequence a row."""
    return -(-len(lengths) // shape.rows)


@st.composite
def packings(draw):
    shape = PackingShape(
        rows=draw(st.integers(1, 4)),
        width=draw(st.integers(4, 20)),
        slots=draw(st.integers(1, 5)),
    )
    lengths = draw(st.lists(st.integers(1, shape.width), min_size=1, max_size=30))
    return np.array(lengths), shape


@settings(max_examples=100, deadline=None)
@given(packings())
def test_rows_hold_whole_sequences_side_by_side(case):
    lengths, shape = case
    plan = plan_packing(lengths, shape, rows_for(lengths, shape))
    taken = np.zeros((plan.num_micro, shape.rows, shape.width), int)
    for micro, row, column, n in zip(
        plan.micro, plan.row, plan.column, lengths, strict=True
    ):
        # A split or overflowing sequence would cover fewer than n columns.
        assert column + n <= shape.width
        taken[micro, row, column : column + n] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()
    slots = set(zip(plan.micro, plan.row, plan.slot, strict=True))
    assert len(slots) == len(lengths)
    np.testing.assert_array_equal(plan.slot // shape.slots, plan.row)


@settings(max_examples=100, deadline=None)
@given(packings())
def test_live_micro_batches_come_first_and_hold_everything(case):
    lengths, shape = case
    plan = plan_packing(lengths, shape, rows_for(lengths, shape))
    assert set(plan.micro) == set(range(plan.num_active))


@settings(max_examples=50, deadline=None)
@given(packings())
def test_place_puts_each_sequence_into_its_slot(case):
    lengths, shape = case
    plan = plan_packing(lengths, shape, rows_for(lengths, shape))
    values = np.arange(1.0, 2 * len(lengths) + 1).reshape(-1, 2)
    placed = plan.place(values)
    assert placed.shape == (plan.num_micro, shape.rows * shape.slots, 2)
    np.testing.assert_array_equal(placed[plan.micro, plan.slot], values)
    assert placed.sum() == values.sum()  # empty slots are zero


def test_packing_is_tight():
    # Longest first, into the fullest row that fits: 8, 5 + 3, 4 + 2 + 2.
    lengths = np.array([2, 3, 8, 4, 5, 2])
    plan = plan_packing(lengths, PackingShape(rows=3, width=8, slots=3), 1)
    rows = [sorted(lengths[plan.row == row]) for row in range(3)]
    assert rows == [[8], [3, 5], [2, 2, 4]]


def test_slots_bound_the_sequences_of_a_row():
    plan = plan_packing(np.ones(7, int), SHAPE, 2)
    assert np.bincount(plan.micro * SHAPE.rows + plan.row).max() == SHAPE.slots


def test_a_sequence_wider_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a row of 8 tokens, got one of 9"):
        plan_packing(np.array([3, 9]), SHAPE, 2)


def test_more_sequences_than_the_rows_hold_are_refused():
    with pytest.raises(ValueError, match="3 sequences must fit into 2 rows"):
        plan_packing(np.array([8, 8, 8]), SHAPE, 1)


@pytest.mark.parametrize("name", ["rows", "width", "slots"])
def test_a_packing_shape_has_sizes_of_one_and_more(name):
    sizes = {"rows": 1, "width": 1, "slots": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        PackingShape(**sizes)


def test_pack_sequences_by_hand():
    prompts = [np.array([3, 4]), np.array([5]), np.array([6])]
    responses = [np.array([7, 0, 1]), np.array([8, 1]), np.array([9, 9, 9, 9])]
    batch, plan = pack_sequences(
        prompts,
        responses,
        SHAPE,
        num_micro=2,
        response_width=4,
        group_ids=np.array([0, 1, 1]),
        loss_rows=np.array([True, True, False]),
    )
    assert plan.num_active == 1
    # The two of 5 tokens open a row each, the one of 3 joins the first of them.
    np.testing.assert_array_equal(
        batch.tokens[0], [[3, 4, 7, 0, 1, 5, 8, 1], [6, 9, 9, 9, 9, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch.positions[0], [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 4, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch.segment_ids[0], [[1, 1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0, 0]]
    )
    # The last prompt token's state predicts the first response token.
    np.testing.assert_array_equal(batch.starts[0], [1, 5, 0, 0, 0, 0])
    np.testing.assert_array_equal(batch.group_ids[0], [0, 1, 0, 1, 0, 0])
    # A sampled 0 is a token like any other: masks come from counts, not from ids. The
    # third sequence is out of the loss.
    np.testing.assert_array_equal(
        batch.mask[0],
        [
            *([1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]),
            *([0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
        ],
    )
    for name in ("tokens", "segment_ids", "mask", "starts"):
        assert not getattr(batch, name)[1].any()  # the dead micro-batch


def test_a_mask_from_ids_would_lose_the_sampled_zero():
    # Trap 32b, kept as a mutant of the mask above.
    response = np.array([7, 0, 1])
    batch, plan = pack_sequences(
        [np.array([3])], [response], SHAPE, num_micro=1, response_width=4
    )
    mask = batch.mask[plan.micro, plan.slot][0]
    from_ids = np.array([7, 0, 1, 0]) != 0
    assert mask.tolist() == [True, True, True, False]
    assert mask.tolist() != from_ids.tolist()


@settings(max_examples=50, deadline=None)
@given(packings(), st.integers(0, 2**32 - 1))
def test_every_sequence_can_be_read_back_from_its_row(case, seed):
    lengths, shape = case
    rng = np.random.default_rng(seed)
    prompt_lengths = rng.integers(1, lengths + 1)
    whole = [rng.integers(0, 99, n) for n in lengths]
    batch, plan = pack_sequences(
        [ids[:n] for ids, n in zip(whole, prompt_lengths, strict=True)],
        [ids[n:] for ids, n in zip(whole, prompt_lengths, strict=True)],
        shape,
        num_micro=rows_for(lengths, shape),
        response_width=shape.width,
    )
    starts, mask = (x[plan.micro, plan.slot] for x in (batch.starts, batch.mask))
    for i, ids in enumerate(whole):
        where = (plan.micro[i], plan.row[i])
        own = batch.segment_ids[where] == plan.segment[i]
        np.testing.assert_array_equal(batch.tokens[where][own], ids)
        np.testing.assert_array_equal(batch.positions[where][own], range(len(ids)))
        response = batch.tokens[where][starts[i] + 1 :][: mask[i].sum()]
        np.testing.assert_array_equal(response, ids[prompt_lengths[i] :])


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one token, got an empty one"):
        pack_sequences(
            [np.array([3]), np.array([], int)],
            [np.array([1]), np.array([1])],
            SHAPE,
            num_micro=1,
            response_width=4,
        )


def test_a_response_that_would_lose_its_end_is_refused():
    # Cut to the width, its EOS token would never be trained on.
    with pytest.raises(ValueError, match="at most 4 tokens, got one of 5"):
        pack_sequences(
            [np.array([3])], [np.full(5, 7)], SHAPE, num_micro=1, response_width=4
        )


def test_an_empty_response_is_in_no_denominator():
    batch, plan = pack_sequences(
        [np.array([3])], [np.array([], int)], SHAPE, num_micro=1, response_width=4
    )
    assert plan.num_active == 1
    assert not batch.mask.any()


def test_pack_inputs_puts_values_into_their_slots():
    lengths = np.array([3, 5, 2, 8])
    prompts = [np.zeros(1, int)] * 4
    responses = [np.zeros(n - 1, int) for n in lengths]
    batch, plan = pack_sequences(
        prompts, responses, SHAPE, num_micro=2, response_width=7
    )
    values = np.arange(28.0).reshape(4, 7)
    full = pack_inputs(batch, plan, advantages=values, old_logprobs=-values)
    assert full["advantages"].shape == full.mask.shape
    np.testing.assert_array_equal(full["advantages"][plan.micro, plan.slot], values)
    np.testing.assert_array_equal(full["old_logprobs"][plan.micro, plan.slot], -values)
    assert "ref_logprobs" not in full.inputs
    assert full.tokens is batch.tokens


def test_rollouts_select_and_concatenate_keep_groups_whole():
    a = fake_rollouts([[1, 0], [0, 0], [1, 1]])
    b = fake_rollouts([[0, 1]], first_id=10, seed=1)
    both = concatenate([a, b])
    assert both.tokens.shape == (4, 2, 6)
    chosen = both.select(np.array([3, 0]))
    assert chosen.problem_ids.tolist() == [10, 0]
    np.testing.assert_array_equal(chosen.tokens[0], b.tokens[0])
    np.testing.assert_array_equal(chosen.tokens[1], a.tokens[0])
    assert both.select(slice(1, 3)).correct.tolist() == [[0, 0], [1, 1]]


def test_the_mask_counts_tokens():
    sizes = [2, 6]
    batch, plan = pack_sequences(
        [np.array([3])] * 2,
        [np.zeros(n, int) for n in sizes],
        SHAPE,
        num_micro=1,
        response_width=6,
    )
    np.testing.assert_array_equal(
        batch.mask[plan.micro, plan.slot], [[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    )


def test_rollouts_go_into_arrays_and_back():
    rollouts = fake_rollouts([[1, 0], [0, 1]])
    again = type(rollouts).from_arrays(rollouts.arrays())
    assert again.arrays().keys() == rollouts.arrays().keys()
    for name, array in rollouts.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)
