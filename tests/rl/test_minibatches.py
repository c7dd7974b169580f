import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxrl_reason.learner.packing import PackingShape
from jaxrl_reason.rl.minibatches import MinibatchPlan, run_updates, score_sequences
from tests.rl.helpers import SETTINGS, fake_rollouts, one_device, pack_inputs

PLAN = SETTINGS.plan()  # 4 prompts of 4 samples in 2 mini-batches


def split(rollouts, *, seed=0, loss_rows=None, plan=PLAN):
    if loss_rows is None:
        loss_rows = np.ones(rollouts.lengths.size, bool)
    order = np.random.default_rng(seed).permutation(len(rollouts.problem_ids))
    return plan.pack(rollouts, order.reshape(plan.num_minibatches, -1), loss_rows)


def of_sequences(minibatch, x):
    """[K, Q, ...] -> [N, ...]."""
    return x[minibatch.plan.micro, minibatch.plan.slot]


@st.composite
def shapes_and_lengths(draw):
    """A plan, and prompt and response lengths that it must hold."""
    prompt, response = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    updates, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    group_size = draw(st.integers(1, 5))
    width = prompt + response + draw(st.integers(0, 20))
    plan = MinibatchPlan.build(
        num_prompts=updates * groups,
        group_size=group_size,
        num_minibatches=updates,
        shape=PackingShape(draw(st.integers(1, 3)), width, draw(st.integers(1, 5))),
        max_sequence=prompt + response,
    )
    longest = draw(st.booleans())
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    grid = (updates * groups, group_size)
    lengths = rng.integers(response if longest else 1, response + 1, grid)
    rollouts = fake_rollouts(
        np.zeros_like(lengths), lengths=lengths, width=response, seed=seed
    )
    sizes = rng.integers(prompt if longest else 1, prompt + 1, updates * groups)
    tokens = np.ones((updates * groups, prompt), int)
    return plan, dataclasses.replace(
        rollouts, prompt_tokens=tokens, prompt_lengths=sizes
    )


@settings(max_examples=100, deadline=None)
@given(shapes_and_lengths())
def test_any_lengths_fit_into_what_was_allocated(case):
    plan, rollouts = case
    minibatches = split(rollouts, plan=plan)
    assert len(minibatches) == plan.num_minibatches
    for minibatch in minibatches:
        assert minibatch.batch.tokens.shape[0] == plan.num_micro
        assert 1 <= minibatch.plan.num_active <= plan.num_micro


def test_the_longest_responses_fit_and_little_is_allocated_beyond():
    lengths = np.full((4, 4), SETTINGS.max_new_tokens)
    rollouts = fake_rollouts(np.zeros((4, 4)), lengths=lengths)
    rollouts = dataclasses.replace(rollouts, prompt_lengths=np.full(4, 3))
    for minibatch in split(rollouts):
        # 8 sequences of 9 tokens, two in a row of 20, two rows in a micro-batch.
        assert minibatch.plan.num_active == 2
    assert PLAN.num_micro == 3


def test_every_group_is_whole_in_one_mini_batch():
    rollouts = fake_rollouts(np.zeros((4, 4)))
    minibatches = split(rollouts)
    index = np.concatenate([m.index for m in minibatches])
    assert sorted(index) == list(range(16))
    for minibatch in minibatches:
        groups = minibatch.index // 4
        ids = of_sequences(minibatch, minibatch.batch.group_ids)
        assert ids.tolist() == [0] * 4 + [1] * 4  # 0 .. groups - 1 in each
        assert len(set(groups[ids == 0])) == len(set(groups[ids == 1])) == 1


def test_sequences_hold_the_sampled_ids():
    rollouts = fake_rollouts(np.zeros((4, 4)))
    for minibatch in split(rollouts):
        plan, batch = minibatch.plan, minibatch.batch
        for i, row in enumerate(minibatch.index):
            where = (plan.micro[i], plan.row[i])
            mine = np.isin(batch.branch_ids[where], (0, plan.slot[i] + 1))
            mine &= batch.segment_ids[where] == plan.segment[i]
            tokens = batch.tokens[where][mine]
            p, g = divmod(row, 4)
            prompt = rollouts.prompt_tokens[p, : rollouts.prompt_lengths[p]]
            response = rollouts.tokens[p, g, : rollouts.lengths[p, g]]
            np.testing.assert_array_equal(tokens, np.concatenate([prompt, response]))


def test_the_order_comes_from_the_generator():
    rollouts = fake_rollouts(np.zeros((4, 4)))
    orders = {tuple(split(rollouts, seed=seed)[0].index) for seed in range(20)}
    assert len(orders) > 3
    again = [split(rollouts, seed=3)[1].index for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_rows_out_of_the_loss_are_masked_and_nothing_else():
    rollouts = fake_rollouts(np.zeros((4, 4)))
    loss_rows = np.random.default_rng(0).random(16) < 0.5
    mask = (np.arange(6) < rollouts.lengths[..., None]).reshape(16, -1)
    for minibatch in split(rollouts, loss_rows=loss_rows):
        found = of_sequences(minibatch, minibatch.batch.mask)
        wanted = mask[minibatch.index] & loss_rows[minibatch.index, None]
        np.testing.assert_array_equal(found, wanted)
        assert (of_sequences(minibatch, minibatch.batch.starts) >= 0).all()


def test_an_update_sees_its_own_rows_of_the_whole_batch():
    values = np.arange(16 * 6.0).reshape(16, 6)
    minibatches, seen = split(fake_rollouts(np.zeros((4, 4)))), []

    def update(state, batch, num_active):
        seen.append(np.asarray(batch["advantages"]))
        return state, {}

    run_updates(update, None, minibatches, {"advantages": values}, one_device())
    for minibatch, found in zip(minibatches, seen, strict=True):
        wanted = values[minibatch.index]
        np.testing.assert_array_equal(of_sequences(minibatch, found), wanted)


def test_scores_come_back_in_the_order_of_the_rollouts():
    rollouts = fake_rollouts(np.zeros((4, 4)))
    number = np.repeat(np.arange(16.0)[:, None], 6, 1)
    minibatches = [
        dataclasses.replace(
            m, batch=pack_inputs(m.batch, m.plan, advantages=number[m.index])
        )
        for m in split(rollouts)
    ]
    scores = score_sequences(
        lambda params, batch, num_active: params * batch["advantages"],
        2.0,
        minibatches,
        one_device(),
    )
    np.testing.assert_array_equal(scores, 2 * number)


def test_prompts_must_divide_into_the_updates():
    settings = dataclasses.replace(SETTINGS, updates_per_rollout=3)
    with pytest.raises(ValueError, match=r"prompts_per_step \(4\) must be a multiple"):
        settings.plan()


def test_a_row_must_hold_a_prompt_and_a_response():
    settings = dataclasses.replace(SETTINGS, row_width=8)
    with pytest.raises(ValueError, match=r"row_width must hold .* \(9 tokens\), got 8"):
        settings.plan()
