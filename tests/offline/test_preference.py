"""Preference training: pairs stay together, add up exactly, and are learnt."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import policy_logprobs, unpack
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.learner.update import make_update
from jaxrl_reason.losses import dpo_loss
from jaxrl_reason.models import unembedding
from jaxrl_reason.offline.preference_batch import Pair, PreferenceSettings, pack_pairs
from jaxrl_reason.offline.preference_methods import (
    PreferenceMethod,
    dpo,
    hinge,
    ipo,
    irpo,
    length_normalised_dpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    even_batches,
    preference_objective,
    preference_update,
    prepare_pairs,
    train_on_pairs,
)
from jaxrl_reason.runs.metrics import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    OPTIMIZER,
    VOCAB,
    copied,
    first_policy,
    one_device,
    random_params,
    same_trees,
    tiny_model,
)

SETTINGS = PreferenceSettings(
    pairs_per_update=4,
    epochs=2,
    rows_per_micro_batch=1,
    row_width=24,
    pairs_per_row=2,
    max_prompt=4,
    max_response=8,
)
PAIRS = [
    Pair([3, 4], [7, 8, 1], [5, 1]),
    Pair([5], [9, 1], [4, 4, 4, 10, 2]),
    Pair([6, 6, 6], [7] * 7 + [1], [8, 2]),
    Pair([3], [8, 8, 2], [3, 11, 6, 6, 1]),
]
METHODS = [
    dpo(),
    dpo(beta=0.5, label_smoothing=0.1),
    robust_dpo(),
    ipo(),
    hinge(beta=0.3),
    nca(beta=0.3),
    length_normalised_dpo(),
    irpo(),
    simpo(),
    orpo(),
]


def ids(method):
    return f"{method.name}-{method.settings.get('label_smoothing', '')}"


# Packing.


def test_both_responses_of_a_pair_stand_in_one_row_side_by_side():
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    for x in (plan.micro, plan.row):
        np.testing.assert_array_equal(x[::2], x[1::2])
    np.testing.assert_array_equal(plan.slot[1::2], plan.slot[::2] + 1)
    assert set(plan.slot[::2] % 2) == {0}
    # 8 and 9 tokens, 8 and 10 share a row of 24; the pair of 16 has one of its own.
    assert plan.live == 3
    np.testing.assert_array_equal(plan.collect(batch.group_ids), np.arange(8) // 2)


def test_every_response_is_where_the_batch_says():
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    both = [(p.prompt, r) for p in PAIRS for r in (p.chosen, p.rejected)]
    starts = plan.collect(batch.starts)
    for i, (prompt, response) in enumerate(both):
        row = (plan.micro[i], plan.row[i])
        first, n = starts[i] - len(prompt) + 1, len(prompt) + len(response)
        inside = slice(first, first + n)
        assert batch.tokens[row][inside].tolist() == [*prompt, *response]
        assert batch.positions[row][inside].tolist() == list(range(n))
        assert set(batch.segment_ids[row][inside]) == {plan.slot[i] + 1}
        assert (batch.segment_ids[row] == plan.slot[i] + 1).sum() == n
    lengths = [len(r) for _, r in both]
    assert plan.collect(batch.mask).sum(1).tolist() == lengths
    assert batch.mask.sum() == sum(lengths)


def test_the_longest_pairs_fit():
    longest = [Pair([3] * 4, [7] * 8, [8] * 8)] * 4
    batch, plan = pack_pairs(SETTINGS, longest)
    assert plan.live == SETTINGS.num_micro == 4
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


# One update of a policy without a transformer, quick to compile.


def bigram_logprobs(params, batch):
    table = jax.nn.log_softmax(params["logits"])
    targets = jnp.roll(batch.tokens, -1, axis=1)
    return unpack(table[batch.tokens, targets], batch)


def logits(seed):
    return np.random.default_rng(seed).standard_normal((VOCAB, VOCAB))


BIGRAM_SCORE = jax.jit(jax.vmap(bigram_logprobs, in_axes=(None, 0)))


def bigram_batch(batch: TrainBatch) -> TrainBatch:
    """With the reference's log-probs, and nan where no response token stands."""
    params = {"logits": jnp.asarray(logits(5), jnp.float32)}
    ref = np.asarray(BIGRAM_SCORE(params, batch)).reshape(batch.mask.shape)
    return batch.with_inputs(ref_logprobs=np.where(batch.mask, ref, np.nan))


def bigram_step(method):
    """A step of gradient descent with rate 1: the change is the gradient."""
    update = make_update(
        preference_objective(bigram_logprobs, method), optax.sgd(1.0), num_groups=4
    )

    def step(batch, live):
        params = {"logits": jnp.asarray(logits(3), jnp.float32)}
        state = init_state(params, optax.sgd(1.0))
        state, metrics = update(state, bigram_batch(batch), live)
        grad = logits(3).astype(np.float32) - np.asarray(state.params["logits"])
        return grad, finish_metrics(metrics)

    return step


@cache
def dpo_step():
    return bigram_step(dpo())


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def pair_loss(method, pw, pl, rw, rl, w, l):  # noqa: E741
    """Each method's loss of one pair in plain Python, as the papers write it."""
    s = dict(method.settings)
    beta, e = s.get("beta"), s.get("label_smoothing")
    d = (pw - rw) - (pl - rl)
    aw, al = pw / w, pl / l

    def odds(a):
        return a - math.log(1 - math.exp(a))

    formulas = {
        "dpo": lambda: -(1 - e) * log_sigmoid(beta * d) - e * log_sigmoid(-beta * d),
        "robust_dpo": lambda: (
            (-(1 - e) * log_sigmoid(beta * d) + e * log_sigmoid(-beta * d))
            / (1 - 2 * e)
        ),
        "ipo": lambda: (d - 1 / (2 * beta)) ** 2,
        "hinge": lambda: max(0.0, 1 - beta * d),
        "nca": lambda: (
            -log_sigmoid(beta * (pw - rw))
            - log_sigmoid(-beta * (pw - rw)) / 2
            - log_sigmoid(-beta * (pl - rl)) / 2
        ),
        "length_normalised_dpo": lambda: (
            -log_sigmoid(beta * ((pw - rw) / w - (pl - rl) / l))
        ),
        "irpo": lambda: -log_sigmoid(beta * d) - s["alpha"] * aw,
        "simpo": lambda: -log_sigmoid(beta * (aw - al) - s["gamma"]),
        "orpo": lambda: -aw - s["lam"] * log_sigmoid(odds(aw) - odds(al)),
    }
    return formulas[method.name]()


def unpacked_loss(method, table, ref, pairs):
    """Mean over pairs, response by response, token by token, in float64."""

    def total(logits, prompt, response):
        tokens = [prompt[-1], *response]
        rows = logits[tokens[:-1]]
        logs = rows - np.log(np.exp(rows).sum(1, keepdims=True))
        return logs[np.arange(len(response)), response].sum()

    losses = [
        pair_loss(
            method,
            total(table, p.prompt, p.chosen),
            total(table, p.prompt, p.rejected),
            total(ref, p.prompt, p.chosen),
            total(ref, p.prompt, p.rejected),
            len(p.chosen),
            len(p.rejected),
        )
        for p in pairs
    ]
    return sum(losses) / len(losses)


def numerical_gradient(f, x, eps=1e-5):
    grad = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = eps
        grad[at] = (f(x + step) - f(x - step)) / (2 * eps)
    return grad


def one_pair_a_micro_batch(pairs):
    """The same shape as `pack_pairs` of all, the pairs as far apart as can be."""
    alone = [pack_pairs(SETTINGS, [pair])[0] for pair in pairs]
    batch = jax.tree.map(lambda *xs: np.stack([x[0] for x in xs]), *alone)
    numbers = np.arange(len(pairs)).reshape(-1, 1, 1)
    return dataclasses.replace(
        batch, group_ids=np.where(batch.mask.any(-1), numbers, 0)
    )


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_an_update_is_that_of_the_unpacked_pairs_however_they_are_split(method):
    step = bigram_step(method)

    def loss(x):
        return unpacked_loss(method, x, logits(5), PAIRS)

    value, grad = loss(logits(3)), numerical_gradient(loss, logits(3))
    packed, plan = pack_pairs(SETTINGS, PAIRS)
    # In three micro-batches and with an empty one; in four; in another order.
    for batch, live in (
        (packed, plan.live),
        (packed, 4),
        (one_pair_a_micro_batch(PAIRS), 4),
        (pack_pairs(SETTINGS, PAIRS[::-1])[0], plan.live),
    ):
        found, row = step(batch, live)
        np.testing.assert_allclose(row["loss"], value, rtol=2e-6)
        np.testing.assert_allclose(found, grad, rtol=1e-5, atol=1e-6)
        assert row["skipped_update_fraction"] == 0


def test_three_pairs_are_the_mean_of_three():
    step = dpo_step()
    batch, plan = pack_pairs(SETTINGS, PAIRS[:3])
    value = unpacked_loss(dpo(), logits(3), logits(5), PAIRS[:3])
    np.testing.assert_allclose(step(batch, plan.live)[1]["loss"], value, rtol=2e-6)


def test_a_mean_of_micro_batch_means_would_differ():
    """The faulty form: every micro-batch divides by its own pairs."""

    def faulty(*args, num_pairs, **settings):
        return dpo_loss(*args, num_pairs=settings["valid"].sum(), **settings)

    batch, plan = pack_pairs(SETTINGS, PAIRS)
    value = unpacked_loss(dpo(), logits(3), logits(5), PAIRS)
    step = bigram_step(PreferenceMethod("faulty", faulty, {"beta": 0.1}))
    assert abs(step(batch, plan.live)[1]["loss"] - value) > 0.1


def test_swapped_halves_would_turn_the_gradient():
    """The faulty form: rejected before chosen."""
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    swapped = [Pair(p.prompt, p.rejected, p.chosen) for p in PAIRS]
    other, other_plan = pack_pairs(SETTINGS, swapped)
    step = dpo_step()
    right, wrong = step(batch, plan.live)[0], step(other, other_plan.live)[0]
    assert (right * wrong).sum() < 0


def test_a_reference_is_asked_for_only_by_methods_that_need_it():
    learner = build_preference_learner(
        tiny_model(), dpo(), SETTINGS, OPTIMIZER, one_device()
    )
    with pytest.raises(ValueError, match="dpo must have a reference, got None"):
        prepare_pairs(learner, PAIRS, None)
    learner = build_preference_learner(
        tiny_model(), orpo(), SETTINGS, OPTIMIZER, one_device()
    )
    assert "ref_logprobs" not in prepare_pairs(learner, PAIRS, None).batch.inputs


def test_batches_are_even_and_lose_nothing():
    batches = even_batches(11, 4, np.random.default_rng(0))
    assert [len(b) for b in batches] == [4, 4, 3]
    assert sorted(np.concatenate(batches)) == list(range(11))


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

    def score(params, batch, live):
        seen.append(params)
        return learner.score(params, batch, live)

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
