"""One update on pairs, of a policy without a transformer: quick to compile."""

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import unpack
from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.learner.update import make_update
from jaxrl_reason.losses import dpo_loss
from jaxrl_reason.offline.preference_batch import Pair, pack_pairs
from jaxrl_reason.offline.preference_methods import (
    PreferenceMethod,
    dpo,
    orpo,
)
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    preference_objective,
    prepare_pairs,
)
from jaxrl_reason.runs.metrics_log import finish_metrics
from tests.offline.pair_helpers import METHODS, PAIRS, SETTINGS, ids, log_sigmoid
from tests.rl.helpers import (
    OPTIMIZER,
    VOCAB,
    one_device,
    tiny_model,
)

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
    ref = np.asarray(BIGRAM_SCORE(params, batch))
    return batch.with_inputs(ref_logprobs=np.where(batch.mask, ref, np.nan))


def bigram_step(method):
    """A step of gradient descent with rate 1: the change is the gradient."""
    update = make_update(
        preference_objective(bigram_logprobs, method), optax.sgd(1.0), num_groups=4
    )

    def step(batch, num_active):
        params = {"logits": jnp.asarray(logits(3), jnp.float32)}
        state = init_state(params, optax.sgd(1.0))
        state, metrics = update(state, bigram_batch(batch), num_active)
        grad = logits(3).astype(np.float32) - np.asarray(state.params["logits"])
        return grad, finish_metrics(metrics)

    return step


@cache
def dpo_step():
    return bigram_step(dpo())


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
    numbers = np.arange(len(pairs)).reshape(-1, 1)
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
    for batch, num_active in (
        (packed, plan.num_active),
        (packed, 4),
        (one_pair_a_micro_batch(PAIRS), 4),
        (pack_pairs(SETTINGS, PAIRS[::-1])[0], plan.num_active),
    ):
        found, row = step(batch, num_active)
        np.testing.assert_allclose(row["loss"], value, rtol=2e-6)
        np.testing.assert_allclose(found, grad, rtol=1e-5, atol=1e-6)
        assert row["skipped_update_fraction"] == 0


def test_three_pairs_are_the_mean_of_three():
    step = dpo_step()
    batch, plan = pack_pairs(SETTINGS, PAIRS[:3])
    value = unpacked_loss(dpo(), logits(3), logits(5), PAIRS[:3])
    np.testing.assert_allclose(
        step(batch, plan.num_active)[1]["loss"], value, rtol=2e-6
    )


def test_a_mean_of_micro_batch_means_would_differ():
    """The faulty form: every micro-batch divides by its own pairs."""

    def faulty(*args, num_pairs, **settings):
        return dpo_loss(*args, num_pairs=settings["valid"].sum(), **settings)

    batch, plan = pack_pairs(SETTINGS, PAIRS)
    value = unpacked_loss(dpo(), logits(3), logits(5), PAIRS)
    step = bigram_step(PreferenceMethod("faulty", faulty, {"beta": 0.1}))
    assert abs(step(batch, plan.num_active)[1]["loss"] - value) > 0.1


def test_swapped_halves_would_turn_the_gradient():
    """The faulty form: rejected before chosen."""
    batch, plan = pack_pairs(SETTINGS, PAIRS)
    swapped = [Pair(p.prompt, p.rejected, p.chosen) for p in PAIRS]
    other, other_plan = pack_pairs(SETTINGS, swapped)
    step = dpo_step()
    right, wrong = (
        step(batch, plan.num_active)[0],
        step(other, other_plan.num_active)[0],
    )
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
