"""Preference training of a tiny transformer: gradients, learning, the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import policy_logprobs
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.learner.update import make_update
from jaxrl_reason.models import unembedding
from jaxrl_reason.offline.preference_batch import Pair
from jaxrl_reason.offline.preference_methods import (
    dpo,
)
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    preference_objective,
    preference_update,
    prepare_pairs,
    train_on_pairs,
)
from jaxrl_reason.runs.metrics_log import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.offline.pair_helpers import METHODS, PAIRS, SETTINGS, ids, log_sigmoid
from tests.rl.helpers import (
    OPTIMIZER,
    copied,
    first_policy,
    one_device,
    random_params,
    same_trees,
    tiny_model,
)

# The transformer.


@pytest.fixture(scope="module")
def score():
    """The scorer, compiled once: it is the same for every method."""
    learner = build_preference_learner(
        tiny_model(), dpo(), SETTINGS, OPTIMIZER, one_device()
    )
    return learner.score


def toy_preference(method, score):
    learner = build_preference_learner(
        tiny_model(), method, SETTINGS, OPTIMIZER, one_device()
    )
    return dataclasses.replace(learner, score=score)


def toy_start():
    return init_state(first_policy().params, OPTIMIZER.build(), copy=True)


def single_response_gradients(model):
    """(params, pairs) -> log-probs of responses and their gradients, one at a time."""

    def logprob(params, tokens, prompt, total):
        columns = jnp.arange(len(tokens))
        segments = (columns < total).astype(jnp.int32)
        hidden = model.apply(
            {"params": params}, tokens[None], columns[None], segments[None]
        )
        logs = jax.nn.log_softmax(hidden[0] @ unembedding(model, params))
        own = jnp.take_along_axis(logs[:-1], tokens[1:, None], axis=1)[:, 0]
        inside = (columns[1:] >= prompt) & (columns[1:] < total)
        return own.sum(where=inside)

    run = jax.jit(jax.value_and_grad(logprob))

    def all_of(params, pairs):
        found = []
        for p in pairs:
            for response in (p.chosen, p.rejected):
                sequence = [*p.prompt, *response]
                tokens = np.pad(sequence, (0, 12 - len(sequence)))
                found.append(run(params, tokens, len(p.prompt), len(sequence)))
        values, grads = zip(*found, strict=True)
        return np.array(values, float).reshape(-1, 2), grads

    return all_of


def test_an_update_of_the_transformer_is_that_of_single_responses(score):
    model, params = tiny_model(), random_params(one_device())
    reference = random_params(one_device(), seed=8)
    one_by_one = single_response_gradients(model)
    policy, grads = one_by_one(params, PAIRS)
    frozen, _ = one_by_one(reference, PAIRS)

    # DPO's loss and gradient, arXiv 2305.18290: -beta s(-beta D) (grad w - grad l).
    beta = 0.3
    d = (policy - frozen) @ [1, -1]
    value = np.mean([-log_sigmoid(beta * x) for x in d])
    pull = -beta / (1 + np.exp(beta * d)) / len(PAIRS)
    weights = np.stack([pull, -pull], axis=1).reshape(-1)
    expected = jax.tree.map(
        lambda *g: sum(w * np.asarray(x) for w, x in zip(weights, g, strict=True)),
        *grads,
    )

    learner = toy_preference(dpo(beta=beta), score)

    def logprobs(params, batch):
        return policy_logprobs(model, params, batch, 1.0)[0]

    sgd = optax.sgd(1.0)
    objective = preference_objective(logprobs, learner.method)
    learner = dataclasses.replace(
        learner, update=make_update(objective, sgd, num_groups=4)
    )
    before = copied(params)
    prepared = prepare_pairs(learner, PAIRS, reference)
    state, metrics = preference_update(learner, init_state(params, sgd), prepared)
    row = finish_metrics(metrics)
    found = jax.tree.map(lambda a, b: a - np.asarray(b), before, state.params)

    np.testing.assert_allclose(row["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(row["chosen_logprob"], policy[:, 0].mean(), rtol=1e-5)
    np.testing.assert_allclose(row["rejected_logprob"], policy[:, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(row["margin"], beta * d.mean(), rtol=1e-4)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def learn(learner, pairs):
    """Rows of ten updates on one batch, and the parameters that come of them."""
    state, rows = toy_start(), []
    prepared = prepare_pairs(learner, pairs, state.params)
    for _ in range(10):
        state, metrics = preference_update(learner, state, prepared)
        rows.append(finish_metrics(metrics))
    return rows, copied(state.params)


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_every_method_learns_which_response_is_better(method, score):
    learner = toy_preference(method, score)
    rows, params = learn(learner, PAIRS)
    with CompileCounter() as compiles:
        other_rows, _ = learn(
            learner, [Pair(p.prompt, p.rejected, p.chosen) for p in PAIRS]
        )
    assert not [name for name in compiles.names_since(0) if "update" in name]
    wanted = {"loss", "accuracy", "margin", "chosen_reward", "rejected_reward"}
    wanted |= {"chosen_logprob", "rejected_logprob", "grad_norm"}
    wanted |= {"skipped_update_fraction"}
    assert wanted <= set(rows[0])
    assert not same_trees(copied(first_policy().params), params)
    for found in (rows, other_rows):
        assert all(np.isfinite(list(row.values())).all() for row in found)
        assert found[-1]["margin"] > found[0]["margin"]
        # Whichever response is called the better one is so in the end.
        assert found[-1]["accuracy"] == 1
    if method.needs_reference:
        # The policy is the reference: no margin yet.
        np.testing.assert_allclose(rows[0]["margin"], 0, atol=1e-4)
    else:
        assert rows[0]["accuracy"] + other_rows[0]["accuracy"] <= 1


def counted(learner):
    """The parts, and the parameters that their scorer was called with."""
    seen = []

    def score(params, batch, num_active):
        seen.append(params)
        return learner.score(params, batch, num_active)

    return dataclasses.replace(learner, score=score), seen


def test_the_reference_is_the_policy_at_the_start_and_is_looked_at_once(score):
    learner, seen = counted(toy_preference(dpo(), score))
    pairs = [*PAIRS, *PAIRS[:2]]
    first, row = train_on_pairs(learner, toy_start(), pairs)
    # Six pairs are two batches, in two epochs four updates.
    assert len(seen) == 2
    assert (row["preference/updates"], row["preference/pairs"], int(first.step)) == (
        4,
        6,
        4,
    )
    given, _ = train_on_pairs(learner, toy_start(), pairs, first_policy().params)
    assert same_trees(copied(first.params), copied(given.params))
    other = random_params(one_device(), seed=8)
    third, _ = train_on_pairs(learner, toy_start(), pairs, other)
    assert not same_trees(copied(first.params), copied(third.params))


def test_nothing_to_train_on_is_refused(score):
    with pytest.raises(ValueError, match="at least one pair, got none"):
        train_on_pairs(toy_preference(dpo(), score), toy_start(), [])
