"""Packed rows give what one sequence a row gives (1e-5, float32)."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.learner.forward import (
    critic_values,
    policy_logprobs,
    squared_probs_of,
)
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.losses import (
    batch_counts,
    grpo_loss,
    sequence_mean,
    sum_squared_probs,
)
from jaxrl_reason.models import ValueModel, unembedding
from tests.rl.helpers import (
    CONFIG,
    VOCAB,
    one_device,
    pack_inputs,
    random_params,
    tiny_model,
)

WIDTH = 7  # T
TEMPERATURE = 0.8


def sequences_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, VOCAB, n) for n, _ in lengths]
    responses = [rng.integers(0, VOCAB, n) for _, n in lengths]
    return prompts, responses


LENGTHS = [(3, 7), (1, 5), (2, 1), (3, 2), (1, 6), (2, 4), (1, 1)]
PROMPTS, RESPONSES = sequences_of(LENGTHS)


def packed(shape):
    batch, plan = pack_sequences(
        PROMPTS, RESPONSES, shape, num_micro=1, response_width=WIDTH
    )
    rng = np.random.default_rng(1)
    shaped = (len(LENGTHS), WIDTH)
    fields = {
        "old_logprobs": -2.5 + 0.1 * rng.standard_normal(shaped),
        "advantages": np.repeat(rng.standard_normal((len(LENGTHS), 1)), WIDTH, 1),
    }
    fields = {name: x.astype(np.float32) for name, x in fields.items()}
    batch = jax.tree.map(lambda x: x[0], pack_inputs(batch, plan, **fields))
    return batch, plan


# Three rows of several sequences, against one row a sequence.
TOGETHER = PackingShape(rows=3, width=20, slots=3)
APART = PackingShape(rows=len(LENGTHS), width=12, slots=1)


@jax.jit
def loss_and_gradient(params, batch):
    def loss(params):
        logprobs, entropy = policy_logprobs(tiny_model(), params, batch, TEMPERATURE)
        mask = batch.mask
        value, _ = grpo_loss(
            logprobs,
            batch["old_logprobs"],
            batch["advantages"],
            mask,
            batch_counts(mask),
            entropy=entropy,
            entropy_coef=0.1,
        )
        return value, (logprobs, entropy)

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.fixture(scope="module")
def params():
    return random_params(one_device())


@pytest.fixture(scope="module")
def results(params):
    """Packing -> the loss, the per-token arrays [B, T] and the gradient."""
    found = {}
    for name, shape in (("together", TOGETHER), ("apart", APART)):
        batch, plan = packed(shape)
        (value, tokens), grads = loss_and_gradient(params, batch)
        found[name] = value, [by_sequence(x, batch, plan) for x in tokens], grads
    return found


def by_sequence(x, batch, plan):
    """[Q, T] -> [B, T], zero outside the mask."""
    return np.where(batch.mask, x, 0.0)[plan.slot]


def test_several_sequences_share_a_row():
    _, plan = packed(TOGETHER)
    assert (plan.slot % TOGETHER.slots).max() == 2


def test_packed_logprobs_and_entropies_equal_those_of_single_rows(results):
    for together, apart in zip(
        results["together"][1], results["apart"][1], strict=True
    ):
        np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)
        assert np.abs(apart).max() > 1


def test_packed_loss_and_gradient_equal_those_of_single_rows(results):
    together, apart = results["together"], results["apart"]
    np.testing.assert_allclose(together[0], apart[0], rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves(together[2]), jax.tree.leaves(apart[2]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert max(np.abs(x).max() for x in jax.tree.leaves(apart[2])) > 0.01


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
def test_squared_probs_without_logits_are_those_of_the_logits(params, sharpness):
    """Of two log-probs, against all logits of plain rows; certain tokens too."""
    scale = params["final_norm"]["scale"] * sharpness
    params = {**params, "final_norm": {"scale": scale}}
    batch, plan = packed(TOGETHER)
    found = jax.jit(squared_probs_of(tiny_model(), TEMPERATURE))(params, batch)
    apart, rows = packed(APART)
    inputs = (apart.tokens, apart.positions, apart.segment_ids)
    hidden = jax.jit(tiny_model().apply)({"params": params}, *inputs)
    logits = hidden @ unembedding(tiny_model(), params)
    squares = sum_squared_probs(logits, temperature=TEMPERATURE)  # [B, S]
    for row, start, tokens, one in zip(
        squares[rows.slot],
        apart.starts[rows.slot],
        RESPONSES,
        found[plan.slot],
        strict=True,
    ):
        n = len(tokens)
        np.testing.assert_allclose(one[:n], row[start : start + n], rtol=3e-5)
    assert (squares.max() > 0.99) == (sharpness > 1)


def test_sequences_that_see_their_neighbours_would_differ(params, results):
    # Mutant: one segment a row.
    batch, plan = packed(TOGETHER)
    seeing = dataclasses.replace(batch, segment_ids=np.minimum(batch.segment_ids, 1))
    (_, tokens), _ = loss_and_gradient(params, seeing)
    wrong = by_sequence(tokens[0], batch, plan)
    assert np.abs(wrong - results["apart"][1][0]).max() > 1e-3


def test_a_sequence_mean_over_packed_rows_would_differ(results):
    # Trap 5, kept as a mutant: a row of several sequences taken for one.
    batch, plan = packed(TOGETHER)
    logprobs = jnp.asarray(plan.place(results["apart"][1][0])[0])
    mask = jnp.asarray(batch.mask)
    rows = (logprobs.reshape(TOGETHER.rows, -1), mask.reshape(TOGETHER.rows, -1))
    slots = (logprobs, mask)
    right, wrong = (sequence_mean(*x, batch_counts(x[1])) for x in (slots, rows))
    by_hand = np.mean(
        [
            x[:n].mean()
            for x, (_, n) in zip(results["apart"][1][0], LENGTHS, strict=True)
        ]
    )
    np.testing.assert_allclose(right, by_hand, rtol=1e-6)
    assert abs(float(wrong) - by_hand) > 1e-3


def test_packed_values_equal_those_of_single_rows(params):
    critic = ValueModel(CONFIG)
    head = np.random.default_rng(2).standard_normal(CONFIG.hidden_size, np.float32)
    weights = {"backbone": params, "value_head": head}
    values = jax.jit(partial(critic_values, critic))
    together, apart = (
        by_sequence(values(weights, batch), batch, plan)
        for batch, plan in (packed(TOGETHER), packed(APART))
    )
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5)
    assert np.abs(apart).max() > 0.1
