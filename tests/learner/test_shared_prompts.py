"""A prompt's tokens once a row give what one sequence a row gives (1e-5, float32)."""

from dataclasses import replace

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jaxrl_reason.learner.forward import critic_values, policy_logprobs
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.losses import batch_counts, grpo_loss
from jaxrl_reason.models import Transformer, ValueModel, init_params
from jaxrl_reason.rl.minibatches import MinibatchPlan
from tests.rl.helpers import CONFIG, VOCAB, fake_rollouts, pack_inputs

WIDTH = 6  # T
PROMPT_IDS = np.array([0, 0, 0, 1, 1, 2, 2, 2])
_RNG = np.random.default_rng(0)
BY_PROMPT = [_RNG.integers(0, VOCAB, n) for n in (4, 1, 5)]
PROMPTS = [BY_PROMPT[i] for i in PROMPT_IDS]
RESPONSES = [_RNG.integers(0, VOCAB, n) for n in (6, 1, 4, 5, 2, 3, 6, 1)]
# Two rows, so that one prompt stands in both; against one row a sequence.
TOGETHER = PackingShape(rows=2, width=30, slots=5)
APART = PackingShape(rows=len(PROMPTS), width=12, slots=1)


def packed(shape, prompt_ids):
    batch, plan = pack_sequences(
        PROMPTS,
        RESPONSES,
        shape,
        num_micro=1,
        response_width=WIDTH,
        prompt_ids=prompt_ids,
    )
    rng = np.random.default_rng(1)
    shaped = (len(PROMPTS), WIDTH)
    fields = {
        "old_logprobs": -2.5 + 0.1 * rng.standard_normal(shaped),
        "advantages": np.repeat(rng.standard_normal((len(PROMPTS), 1)), WIDTH, 1),
    }
    fields = {name: x.astype(np.float32) for name, x in fields.items()}
    return jax.tree.map(lambda x: x[0], pack_inputs(batch, plan, **fields)), plan


def by_sequence(x, batch, plan):
    return np.where(batch.mask, x, 0)[plan.slot]


def outcome(config, batch, plan):
    """Log-probs, values and the gradient of a loss."""
    model, critic = Transformer(config), ValueModel(config)
    params = init_params(model, jax.random.key(0))
    of_critic = {
        "backbone": params,
        "value_head": jax.random.normal(jax.random.key(1), (config.hidden_size,)),
    }

    def loss(params):
        logprobs, _ = policy_logprobs(model, params, batch, 0.8)
        old, advantages, mask = batch["old_logprobs"], batch["advantages"], batch.mask
        value, _ = grpo_loss(logprobs, old, advantages, mask, batch_counts(mask))
        return value, logprobs

    (value, logprobs), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    values = critic_values(critic, of_critic, batch)
    tokens = [by_sequence(x, batch, plan) for x in (logprobs, values)]
    return value, *tokens, grads


def worst(a, b):
    differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)
    return max(jax.tree.leaves(differences))


@pytest.mark.parametrize("window", [None, 3])
def test_sharing_changes_nothing(window):
    config = replace(CONFIG, sliding_window=window)
    apart = outcome(config, *packed(APART, None))
    shared = outcome(config, *packed(TOGETHER, PROMPT_IDS))
    assert worst(apart, shared) < 1e-5


@pytest.mark.parametrize("fault", ["no branches", "branches from 0", "own positions"])
def test_a_faulty_layout_is_seen(fault):
    apart = outcome(CONFIG, *packed(APART, None))
    batch, plan = packed(TOGETHER, PROMPT_IDS)
    broken = {
        # A response reads the ones before it.
        "no branches": {"branch_ids": np.zeros_like(batch.branch_ids)},
        # Numbered from 0, the first response is taken for a part of the prompt.
        "branches from 0": {"branch_ids": np.maximum(batch.branch_ids - 1, 0)},
        "own positions": {"positions": np.arange(30)[None].repeat(2, 0)},
    }[fault]
    broken = outcome(CONFIG, replace(batch, **broken), plan)
    assert worst(apart[1], broken[1]) > 1e-3


def test_a_row_holds_a_prompt_once():
    batch, plan = packed(TOGETHER, PROMPT_IDS)
    own = sum(len(r) + 1 for r in RESPONSES)
    places = {
        (row, prompt): len(BY_PROMPT[prompt]) - 1
        for row, prompt in zip(plan.row, PROMPT_IDS, strict=True)
    }
    assert (batch.segment_ids > 0).sum() == own + sum(places.values())
    assert len(places) == 4  # three prompts, one of them in both rows


@st.composite
def cases(draw):
    width = draw(st.integers(6, 24))
    groups = draw(st.integers(1, 5))
    size = draw(st.integers(1, 4))
    prompts = draw(
        st.lists(st.integers(1, width // 2), min_size=groups, max_size=groups)
    )
    responses = draw(
        st.lists(
            st.integers(0, width // 2), min_size=groups * size, max_size=groups * size
        )
    )
    return width, size, prompts, responses


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_sequence_can_be_read_back_from_its_row(case):
    width, size, prompt_lengths, lengths = case
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 99, n) for n in np.repeat(prompt_lengths, size)]
    ids = np.repeat(np.arange(len(prompt_lengths)), size)
    for i, group in enumerate(ids):
        prompts[i] = prompts[group * size]
    responses = [rng.integers(0, 99, n) for n in lengths]
    batch, plan = pack_sequences(
        prompts,
        responses,
        PackingShape(1, width, 3),
        num_micro=len(prompts),
        response_width=width,
        prompt_ids=ids,
    )
    starts = batch.starts[plan.micro, plan.slot]
    for i, response in enumerate(responses):
        where = (plan.micro[i], plan.row[i])
        branch = batch.branch_ids[where]
        mine = np.isin(branch, (0, plan.slot[i] + 1))
        mine &= batch.segment_ids[where] == plan.segment[i]
        whole = np.concatenate([prompts[i], response])
        np.testing.assert_array_equal(batch.tokens[where][mine], whole)
        np.testing.assert_array_equal(batch.positions[where][mine], range(len(whole)))
        assert np.flatnonzero(mine)[len(prompts[i]) - 1] == starts[i]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_rows_that_a_plan_allocates_are_enough(num_prompts, size, seed):
    rng = np.random.default_rng(seed)
    rollouts = fake_rollouts(
        np.zeros((num_prompts, size)),
        lengths=rng.choice([1, WIDTH - 1, WIDTH], (num_prompts, size)),
        width=WIDTH,
        seed=seed % 1000,
    )
    longest = rollouts.prompt_tokens.shape[1] + WIDTH
    plan = MinibatchPlan.build(
        num_prompts=num_prompts,
        group_size=size,
        num_minibatches=1,
        shape=PackingShape(1, longest + int(rng.integers(0, 3 * WIDTH)), 4),
        max_sequence=longest,
    )
    order = rng.permutation(num_prompts)[None]
    plan.pack(rollouts, order, np.ones(num_prompts * size, bool))


def test_prompts_of_one_id_are_the_same():
    with pytest.raises(ValueError, match="got 2 and 3 tokens for 7"):
        pack_sequences(
            [np.arange(2), np.arange(3)],
            [np.array([1]), np.array([1])],
            TOGETHER,
            num_micro=1,
            response_width=2,
            prompt_ids=np.array([7, 7]),
        )
