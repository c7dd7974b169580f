"""Several objectives, one step: the gradients are those of whole mini-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import unpack
from jaxrl_reason.learner.multi_objective import (
    advantage_objectives,
    component_advantages,
    init_uncertainty_state,
    make_multi_objective_update,
    make_uncertainty_update,
)
from jaxrl_reason.learner.objective_weights import (
    DynamicWeightAverage,
    fixed_weights,
    given_weights,
    pcgrad_weights,
    shortest_weights,
)
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.learner.update import make_update
from jaxrl_reason.losses import batch_counts, dapo_loss, dr_grpo_advantages, token_mean
from jaxrl_reason.runs.metrics_log import finish_metrics
from tests.rl.helpers import VOCAB, pack_inputs

B, T = 6, 3
RNG = np.random.default_rng(0)
SIZES = RNG.integers(1, T + 1, B)
RESPONSES = [RNG.integers(0, VOCAB, n) for n in SIZES]
ADVANTAGES = RNG.standard_normal((B, T, 2)).astype(np.float32)
ADVANTAGES[..., 1] -= 1.5 * ADVANTAGES[..., 0]  # what is good for one harms the other


def packed(num_micro, rows):
    batch, plan = pack_sequences(
        [np.array([3])] * B,
        RESPONSES,
        PackingShape(rows, width=9, slots=2),
        num_micro=num_micro,
        response_width=T,
        group_ids=np.repeat([0, 1], 3),
    )
    old = np.full((B, T), -2.5, np.float32)
    return pack_inputs(batch, plan, advantages=ADVANTAGES, old_logprobs=old), plan


ONE, MANY = packed(1, 4), packed(5, 1)


def linear(params, batch, counts):
    """The mean over tokens of advantage times the token's parameter: linear in both."""
    targets = jnp.roll(batch.tokens, -1, axis=1)
    values = unpack(params["w"][targets], batch)
    mask = batch.mask
    loss = token_mean(values * batch["advantages"], mask, counts)
    return loss, {"entropy": (mask.sum().astype(jnp.float32), jnp.float32(mask.size))}


def hand_gradients(num_objectives):
    """[K, V] by NumPy."""
    found = np.zeros((num_objectives, VOCAB))
    for i, response in enumerate(RESPONSES):
        for t, token in enumerate(response):
            found[:, token] += ADVANTAGES[i, t, :num_objectives]
    return found / SIZES.sum()


def hand_pcgrad(gradients):
    """Two gradients: each loses what points against the other as it came."""
    (a, b), total = gradients, 0
    for own, other in ((a, b), (b, a)):
        product = own @ other
        total = total + own - min(product, 0) * other / (other @ other + 1e-8)
    return total


def hand_mgda(a, b):
    weight = np.clip((b - a) @ b / ((a - b) @ (a - b)), 0, 1)
    return weight * a + (1 - weight) * b


W = RNG.standard_normal(VOCAB).astype(np.float32)


def start(learning_rate=1.0):
    optimizer = optax.sgd(learning_rate)
    return init_state({"w": jnp.asarray(W)}, optimizer), optimizer


def step(combine, num_objectives, made=ONE, objectives=None, given=()):
    """The step that the parameters make, and the finished metrics."""
    state, optimizer = start()
    objectives = objectives or advantage_objectives(linear, num_objectives)
    update = make_multi_objective_update(objectives, combine, optimizer, num_groups=2)
    state, metrics = update(state, made[0], made[1].num_active, *given)
    return W - np.asarray(state.params["w"]), finish_metrics(metrics)


def test_each_way_of_joining_makes_the_step_of_the_hand_computation():
    a, b = hand_gradients(2)
    assert a @ b < 0  # they conflict, so PCGrad and MGDA have something to do
    cases = {
        "fixed": (fixed_weights(1.0, 0.5), a + 0.5 * b),
        "pcgrad": (pcgrad_weights(), hand_pcgrad((a, b))),
        "mgda": (shortest_weights(), hand_mgda(a, b)),
    }
    losses = (a @ W, b @ W)
    for combine, expected in cases.values():
        found, row = step(combine, 2)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose([row["loss_0"], row["loss_1"]], losses, rtol=1e-5)
        weighted = row["weight_0"] * losses[0] + row["weight_1"] * losses[1]
        np.testing.assert_allclose(row["loss"], weighted, rtol=1e-5)
        assert row["gradient_conflict_fraction"] == 1.0
        norm = np.linalg.norm(expected)
        np.testing.assert_allclose(row["grad_norm"], norm, rtol=1e-5)
        # A mean over the objectives, which see the same tokens.
        assert row["entropy"] == SIZES.sum() / (4 * 2 * T)
    found, row = step(given_weights, 2, given=(np.array([0.25, 3.0]),))
    np.testing.assert_allclose(found, 0.25 * a + 3 * b, rtol=2e-5, atol=1e-6)
    assert row["weight_1"] == 3.0


def test_micro_batches_change_nothing():
    plan = MANY[1]
    assert 1 < plan.num_active < plan.num_micro
    for combine in (pcgrad_weights(), shortest_weights()):
        one, row = step(combine, 2)
        many, other = step(combine, 2, MANY)
        np.testing.assert_allclose(one, many, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-4, atol=1e-6)


def test_projecting_every_micro_batch_would_differ():
    # The mutant: conflicts looked at in each micro-batch, whose gradients are noisier.
    plan, total = MANY[1], 0
    for k in range(plan.num_active):
        mine = [i for i in range(B) if plan.micro[i] == k]
        parts = np.zeros((2, VOCAB))
        for i in mine:
            for t, token in enumerate(RESPONSES[i]):
                parts[:, token] += ADVANTAGES[i, t, :2] / SIZES.sum()
        total = total + hand_pcgrad(parts)
    right, _ = step(pcgrad_weights(), 2, MANY)
    assert np.abs(total - right).max() > 0.01


def test_without_a_conflict_pcgrad_is_the_plain_sum():
    batch, plan = ONE
    agreeing = np.abs(ADVANTAGES)
    made = (pack_inputs(batch, plan, advantages=agreeing), plan)
    found, row = step(pcgrad_weights(), 2, made)
    plain, _ = step(fixed_weights(1, 1), 2, made)
    np.testing.assert_allclose(found, plain, rtol=1e-6)
    assert row["gradient_conflict_fraction"] == 0.0
    assert [row["weight_0"], row["weight_1"]] == [1, 1]
    # And it is the step of `make_update` on the sum of the advantages.
    state, optimizer = start()
    whole = pack_inputs(batch, plan, advantages=agreeing.sum(axis=-1))
    state, _ = make_update(linear, optimizer, num_groups=2)(
        state, whole, plan.num_active
    )
    np.testing.assert_allclose(found, W - np.asarray(state.params["w"]), rtol=1e-5)


def test_the_order_of_projections_follows_from_seed_and_update():
    a, b, c = jnp.eye(3)[0], jnp.array([-1.0, 1.0, 0.0]), jnp.array([-1.0, -2.0, 1.0])
    losses = jnp.zeros(3)

    combine = jax.jit(pcgrad_weights(seed=3))

    def draws():
        return [tuple(combine(losses, [a, b, c], s).tolist()) for s in range(8)]

    assert len(set(draws())) > 1
    assert draws() == draws()


def test_a_gradient_that_is_not_finite_changes_nothing():
    def bad(params, batch, counts):
        return jnp.sum(params["w"]) * jnp.nan, {}

    objectives = [*advantage_objectives(linear, 1), bad]
    for combine in (pcgrad_weights(), shortest_weights()):
        found, row = step(combine, 2, objectives=objectives)
        assert not found.any()
        assert row["skipped_update_fraction"] == 1.0


# Learnt weights.


def positive(scale):
    def objective(params, batch, counts):
        squared = batch["advantages"][..., 0] ** 2
        loss, metrics = linear(params, batch.with_inputs(advantages=squared), counts)
        return scale + loss**2, metrics

    return objective


def test_uncertainty_weights_are_learnt_from_whole_mini_batches():
    # A quadratic of the whole mini-batch is no sum over micro-batches: one is enough.
    optimizer = optax.sgd(0.5)
    state = init_uncertainty_state({"w": jnp.asarray(W)}, optimizer, 2)
    update = make_uncertainty_update(
        [positive(0.3), positive(2.0)], optimizer, num_groups=2
    )
    rows = []
    for _ in range(60):
        state, metrics = update(state, ONE[0], ONE[1].num_active)
        rows.append(finish_metrics(metrics))
    s = np.full(2, -0.5)
    weights = np.exp(-s) / 2
    found = [rows[0]["weight_0"], rows[0]["weight_1"]]
    np.testing.assert_allclose(found, weights, rtol=1e-6)
    # The optimum is s = log L, so weights 1 / (2 L).
    last = np.array([rows[-1]["loss_0"], rows[-1]["loss_1"]])
    now = np.asarray(state.params["log_variances"])
    np.testing.assert_allclose(now, np.log(last), atol=1e-3)
    assert all(row["positive_loss_fraction"] == 1.0 for row in rows)


def test_the_variance_of_a_loss_that_is_not_positive_rests():
    # Unfrozen (the mutant), s falls by more than half the rate each update: for ever.
    optimizer = optax.sgd(0.5)
    below = [lambda p, b, c: (jnp.sum(p["w"]) * 0.1 - 5.0, {}), positive(2.0)]
    update = make_uncertainty_update(below, optimizer, num_groups=2)
    state = init_uncertainty_state({"w": jnp.asarray(W)}, optimizer, 2)
    state, metrics = update(state, ONE[0], ONE[1].num_active)
    s = np.asarray(state.params["log_variances"])
    assert s[0] == -0.5 != s[1]
    assert finish_metrics(metrics)["positive_loss_fraction"] == 0.5


def test_dynamic_weights_need_two_epochs_and_losses_above_zero():
    dwa = DynamicWeightAverage(2)
    dwa.end_epoch([1.0, 0.8])
    assert dwa.weights().tolist() == [1, 1]
    dwa.end_epoch([0.9, 0.4])
    dwa.end_epoch([0.9, 0.4])
    assert len(dwa.history) == 2
    np.testing.assert_allclose(dwa.weights(), [1, 1], rtol=1e-6)
    for losses in ([1.0], [1.0, -0.1], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="losses must be 2 numbers > 0"):
            dwa.end_epoch(losses)


# Advantages of several rewards.


def test_advantages_of_each_reward_are_made_apart():
    rewards = np.array([[1, 0], [0, 0], [0, 1], [1, 1]], np.float32)
    ids, mask = jnp.array([0, 0, 1, 1]), np.array([[1, 1], [1, 0], [1, 1], [0, 0]])
    found = component_advantages(
        dr_grpo_advantages, jnp.asarray(rewards), mask, ids, num_groups=2
    )
    assert found.shape == (4, 2, 2)
    for k in range(2):
        alone = dr_grpo_advantages(jnp.asarray(rewards[:, k]), ids, num_groups=2)
        np.testing.assert_allclose(found[..., k], mask * np.asarray(alone)[:, None])


def test_a_policy_learns_from_two_advantages():
    # A bigram table in place of the transformer, which takes long to compile.
    def objective(params, batch, counts):
        targets = jnp.roll(batch.tokens, -1, axis=1)
        logprobs = unpack(jax.nn.log_softmax(params)[batch.tokens, targets], batch)
        args = (batch["old_logprobs"], batch["advantages"], batch.mask)
        return dapo_loss(logprobs, *args, counts)

    optimizer = optax.sgd(0.3)  # Adam would not follow the direction
    update = make_multi_objective_update(
        advantage_objectives(objective, 2), shortest_weights(), optimizer, num_groups=2
    )
    state, rows = init_state(jnp.zeros((VOCAB, VOCAB)), optimizer), []
    for _ in range(4):
        state, metrics = update(state, MANY[0], MANY[1].num_active)
        rows.append(finish_metrics(metrics))
    assert int(state.step) == 4
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    names = {"ratio", "clip_fraction_low", "grad_norm", "gradient_conflict_fraction"}
    assert names <= set(rows[0])
    # MGDA lowers both losses.
    for name in ("loss_0", "loss_1"):
        assert rows[-1][name] < rows[0][name]


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="at least one function, got none"):
        make_multi_objective_update([], fixed_weights(1), optax.sgd(1.0), num_groups=2)
    with pytest.raises(ValueError, match="at least one function, got none"):
        make_uncertainty_update([], optax.sgd(1.0), num_groups=2)
    with pytest.raises(ValueError, match="at least one number, got none"):
        fixed_weights()
    with pytest.raises(ValueError, match="num_objectives must be >= 1, got 0"):
        advantage_objectives(linear, 0)
    with pytest.raises(ValueError, match=r"weights must have shape \[2\]"):
        step(fixed_weights(1.0), 2)
    flat = pack_inputs(ONE[0], ONE[1], advantages=ADVANTAGES[..., 0])
    with pytest.raises(ValueError, match=r"one axis more, got \(8, 3\)"):
        step(fixed_weights(1.0, 1.0), 2, (flat, ONE[1]))


def test_the_counts_are_those_of_the_whole_mini_batch():
    counts = batch_counts(ONE[0].mask[0])
    assert int(counts.tokens) == SIZES.sum()
