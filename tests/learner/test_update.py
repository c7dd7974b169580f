"""Micro-batches add up; a gradient that is not finite changes nothing; one compile."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import policy_logprobs, unpack
from jaxrl_reason.learner.packing import PackingShape, pack_sequences
from jaxrl_reason.learner.sft import sft_objective
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.learner.update import (
    accumulate_gradients,
    accumulate_in_place,
    apply_gradients,
    make_scorer,
    make_update,
    micro_batch,
    minibatch_counts,
)
from jaxrl_reason.losses import (
    batch_counts,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    prompt_mean,
)
from jaxrl_reason.rl.minibatches import policy_objective
from jaxrl_reason.runs.metrics_log import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.models.numpy_transformer import VARIANTS, build
from tests.rl.helpers import (
    VOCAB,
    copied,
    one_device,
    pack_inputs,
    random_params,
    same_trees,
    tiny_model,
    toy_dapo,
)

T, GROUPS = 6, 2


def example_batch(num_micro, rows, *, seed=0):
    """Two groups of six sequences of unequal lengths; all but one sequence counts."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, T + 1, 12)
    prompts = [rng.integers(3, VOCAB, n) for n in rng.integers(1, 4, 12)]
    batch, plan = pack_sequences(
        prompts,
        [rng.integers(0, VOCAB, n) for n in sizes],
        PackingShape(rows, width=14, slots=3),
        num_micro=num_micro,
        response_width=T,
        group_ids=np.repeat(np.arange(GROUPS), 6),
        loss_rows=np.arange(12) != 5,
    )
    fields = {
        "old_logprobs": -2.5 + 0.3 * rng.standard_normal((12, T)),
        "ref_logprobs": -2.5 + 0.3 * rng.standard_normal((12, T)),
        "advantages": np.repeat(rng.standard_normal((12, 1)), T, 1),
    }
    fields = {name: x.astype(np.float32) for name, x in fields.items()}
    return pack_inputs(batch, plan, **fields), plan


# The same rows in one micro-batch, in several, and in several of more allocated.
ONE = example_batch(1, 8)
MANY = example_batch(8, 1)
SPARE = example_batch(6, 2)


def bigram_logprobs(params, batch):
    """A policy without a transformer, quick to compile: logits of the last token."""
    table = jax.nn.log_softmax(params["logits"])
    targets = jnp.roll(batch.tokens, -1, axis=1)
    return unpack(table[batch.tokens, targets], batch)


def with_loss(loss):
    def objective(params, batch, counts):
        args = (batch["old_logprobs"], batch["advantages"], batch.mask)
        logprobs = bigram_logprobs(params, batch)
        return loss(logprobs, *args, counts, batch=batch)

    return objective


def token_level(*args, batch):
    return dapo_loss(*args)


def sequence_level(*args, batch):
    return grpo_loss(*args, ref_logprobs=batch["ref_logprobs"], kl_coef=0.2)


def fixed_length(*args, batch):
    return dr_grpo_loss(*args, length=10)


def prompt_level(logprobs, old, advantages, mask, counts, *, batch):
    ids = batch.group_ids
    value = prompt_mean(logprobs * advantages, mask, ids, counts, num_groups=GROUPS)
    return value, {}


LOSSES = [token_level, sequence_level, fixed_length, prompt_level]


@pytest.fixture(scope="module")
def bigram():
    logits = np.random.default_rng(3).standard_normal((VOCAB, VOCAB))
    return {"logits": jnp.asarray(logits, jnp.float32)}


def gradients(objective, params, batch, num_active):
    counts = minibatch_counts(batch, GROUPS)
    run = jax.jit(partial(accumulate_gradients, objective))
    return run(params, batch, num_active, counts)


def assert_same_sums(one, other, rtol):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_micro_batches_add_up(bigram, loss):
    objective = with_loss(loss)
    one = gradients(objective, bigram, ONE[0], ONE[1].num_active)
    assert abs(float(one[0])) > 0.01
    assert np.abs(one[2]["logits"]).max() > 0.01
    for batch, plan in (MANY, SPARE):
        assert 1 < plan.num_active < plan.num_micro
        many = gradients(objective, bigram, batch, plan.num_active)
        assert_same_sums(one, many, rtol=2e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_the_mean_of_micro_batch_means_would_differ(bigram, loss):
    # Trap 1, kept as a mutant: every micro-batch counts for itself, then they are
    # averaged. All reductions are wrong by it, since micro-batches differ in tokens,
    # in sequences and in groups.
    batch, plan = MANY
    objective = with_loss(loss)
    means = [
        objective(bigram, part, batch_counts(
            part.mask, part.group_ids, num_groups=GROUPS
        ))[0]
        for part in (micro_batch(batch, k) for k in range(plan.num_active))
    ]  # fmt: skip
    right = gradients(objective, bigram, ONE[0], ONE[1].num_active)[0]
    assert abs(float(right) - np.mean(means)) > 1e-3 * abs(float(right))


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("qwen2", {}),
        ("qwen3", {"remat": "full"}),
        ("windows", {"remat": "dots"}),
        ("everything", {"dtype": "bfloat16"}),
    ],
)
def test_sums_in_one_tree_are_those_of_two(variant, changes):
    # JAX gives the gradients of some arrays to others if only some reach the scan over
    # layers as they are: every array of every kind of model is compared.
    model, params = build(dataclasses.replace(VARIANTS[variant], **changes))
    objective = policy_objective(model, toy_dapo(), temperature=0.7, num_groups=GROUPS)
    batch, plan = MANY
    counts = minibatch_counts(batch, GROUPS)
    two, one = (
        jax.jit(partial(accumulate, objective))(params, batch, plan.num_active, counts)
        for accumulate in (accumulate_gradients, accumulate_in_place)
    )
    tolerance = 2e-2 if "dtype" in changes else 1e-5
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())
    nothing = jax.jit(partial(accumulate_in_place, objective))(params, batch, 0, counts)
    assert not any(np.any(x) for x in jax.tree.leaves(nothing))


def test_micro_batches_of_the_model_add_up():
    objective = policy_objective(
        tiny_model(), toy_dapo(), temperature=0.7, num_groups=GROUPS
    )
    params = random_params(one_device())
    one = gradients(objective, params, ONE[0], ONE[1].num_active)
    many = gradients(objective, params, SPARE[0], SPARE[1].num_active)
    np.testing.assert_allclose(one[0], many[0], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(one[2]), jax.tree.leaves(many[2]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    rows = finish_metrics(one[1]), finish_metrics(many[1])
    assert rows[0].keys() == rows[1].keys() >= {"ratio", "entropy", "clip_fraction_low"}
    for name, value in rows[0].items():
        np.testing.assert_allclose(value, rows[1][name], rtol=1e-5, atol=1e-6)


def test_the_temperature_reaches_the_objective():
    # Trap 27: at the temperature of the old log-probs the first ratio is 1; in a loss
    # that forgets it (the mutant) it is not.
    batch = micro_batch(ONE[0], 0)

    @jax.jit
    def ratios(params):
        old, _ = policy_logprobs(tiny_model(), params, batch, 0.7)
        seen = batch.with_inputs(old_logprobs=old.reshape(batch.mask.shape))
        counts = minibatch_counts(batch, GROUPS)
        return [
            policy_objective(
                tiny_model(), toy_dapo(), temperature=temperature, num_groups=GROUPS
            )(params, seen, counts)[1]
            for temperature in (0.7, 1.0)
        ]

    right, wrong = map(finish_metrics, ratios(random_params(one_device())))
    assert abs(right["ratio"] - 1) < 1e-6
    assert abs(right["approx_kl_k3"]) < 1e-9
    assert wrong["approx_kl_k3"] > 0.01


def test_dead_micro_batches_are_not_run(bigram):
    batch, plan = MANY
    ran = []

    def objective(params, part, counts):
        jax.debug.callback(lambda: ran.append(1))
        return with_loss(token_level)(params, part, counts)

    jax.block_until_ready(gradients(objective, bigram, batch, plan.num_active))
    jax.effects_barrier()
    assert len(ran) == plan.num_active < plan.num_micro


def test_what_dead_micro_batches_hold_does_not_matter(bigram):
    batch, plan = MANY
    objective = with_loss(token_level)

    def spoil(x):
        x = np.array(x)
        if x.dtype == np.float32:
            x[plan.num_active :] = np.nan
        return x

    clean = gradients(objective, bigram, batch, plan.num_active)
    spoilt = gradients(objective, bigram, jax.tree.map(spoil, batch), plan.num_active)
    assert same_trees(clean, spoilt)


def test_counts_are_of_the_whole_mini_batch():
    for batch, _ in (ONE, MANY, SPARE):
        counts = minibatch_counts(batch, GROUPS)
        lengths = np.asarray(ONE[0].mask[ONE[1].micro, ONE[1].slot]).sum(1)
        assert int(counts.tokens) == lengths.sum()
        assert int(counts.sequences) == 11  # one is out of the loss
        assert counts.group_tokens.tolist() == [lengths[:6].sum(), lengths[6:].sum()]


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1))


def moved_state():
    """A state some updates into a run: moments and counters are not zero."""
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones((2, 2))}
    state = init_state(params, OPTIMIZER)
    for _ in range(2):
        state, _ = apply_gradients(
            state, jax.tree.map(jnp.ones_like, params), OPTIMIZER
        )
    return state


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_leaves_the_state(bad):
    state = moved_state()
    grads = {"a": jnp.array([0.1, bad]), "b": jnp.ones((2, 2))}
    after, metrics = jax.jit(partial(apply_gradients, optimizer=OPTIMIZER))(
        state, grads
    )
    assert same_trees(state, after)
    assert int(after.step) == 2
    assert finish_metrics(metrics) == {"skipped_update_fraction": 1.0}
    # And it goes on: not once let through, however often it comes.
    for _ in range(12):
        after, _ = apply_gradients(after, grads, OPTIMIZER)
    assert same_trees(state, after)


def test_a_gradient_whose_norm_overflows_leaves_the_state():
    state = moved_state()
    grads = {"a": jnp.array([3e38, 3e38]), "b": jnp.ones((2, 2))}
    after, metrics = apply_gradients(state, grads, OPTIMIZER)
    assert same_trees(state, after)
    assert float(metrics["skipped_update_fraction"][0]) == 1


def test_what_optax_offers_would_let_the_nan_through():
    # Trap 42, kept as mutants of the two tests above.
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones((2, 2))}
    grads = {"a": jnp.array([0.1, np.inf]), "b": jnp.ones((2, 2))}
    clipped, _ = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())
    assert np.isnan(clipped["a"][1])
    limited = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=3)
    state = limited.init(params)
    for _ in range(5):
        updates, state = limited.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    assert not np.isfinite(params["a"]).all()


def test_a_finite_gradient_is_optax_update():
    state = moved_state()
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros((2, 2))}
    after, metrics = apply_gradients(state, grads, OPTIMIZER)
    updates, _ = OPTIMIZER.update(grads, state.opt_state, state.params)
    assert same_trees(after.params, optax.apply_updates(state.params, updates))
    assert int(after.step) == 3
    row = finish_metrics(metrics)
    assert row["skipped_update_fraction"] == 0
    np.testing.assert_allclose(row["grad_norm"], 5.0, rtol=1e-6)  # before the clip


@pytest.fixture(scope="module")
def update():
    return make_update(with_loss(token_level), OPTIMIZER, num_groups=GROUPS)


def test_an_update_is_its_parts_put_together(bigram, update):
    batch, plan = MANY
    state = init_state(copied(bigram), OPTIMIZER)
    loss, _, grads = gradients(with_loss(token_level), bigram, batch, plan.num_active)
    wanted, _ = apply_gradients(init_state(bigram, OPTIMIZER), grads, OPTIMIZER)
    state, metrics = update(state, batch, plan.num_active)
    np.testing.assert_allclose(
        state.params["logits"], wanted.params["logits"], rtol=1e-5, atol=1e-6
    )
    row = finish_metrics(metrics)
    np.testing.assert_allclose(row["loss"], loss, rtol=1e-5)
    assert {
        "grad_norm",
        "skipped_update_fraction",
        "ratio",
        "approx_kl_k3",
    } <= row.keys()


def test_the_state_is_donated_and_nothing_compiles_again(bigram, update):
    batch, plan = jax.device_put(MANY[0]), MANY[1]
    state = jax.device_put(init_state(copied(bigram), OPTIMIZER))
    after, _ = update(state, batch, plan.num_active)
    assert state.params["logits"].is_deleted()
    with CompileCounter() as compiles:
        for num_active in (plan.num_active, 1, 2):
            after, _ = update(after, batch, num_active)
    assert compiles.count == 0
    assert int(after.step) == 4


def test_a_batch_that_is_wholly_masked_changes_nothing_but_by_momentum(bigram, update):
    batch, plan = MANY
    empty = dataclasses.replace(batch, mask=np.zeros_like(batch.mask))
    state, metrics = update(
        init_state(copied(bigram), OPTIMIZER), empty, plan.num_active
    )
    row = finish_metrics(metrics)
    assert (row["loss"], row["grad_norm"], row["skipped_update_fraction"]) == (0, 0, 0)
    assert "ratio" not in row  # nothing was measured
    assert np.isfinite(state.params["logits"]).all()


def test_a_scorer_gives_every_live_micro_batch(bigram):
    batch, plan = MANY
    scores = make_scorer(bigram_logprobs)(bigram, batch, plan.num_active)
    assert scores.shape == batch.mask.shape
    one = make_scorer(bigram_logprobs)(bigram, ONE[0], ONE[1].num_active)
    mask = ONE[0].mask[ONE[1].micro, ONE[1].slot]
    found, wanted = scores[plan.micro, plan.slot], one[ONE[1].micro, ONE[1].slot]
    np.testing.assert_allclose(found[mask], wanted[mask], rtol=1e-6)
    assert not np.asarray(scores)[plan.num_active :].any()


def test_the_supervised_objective_is_the_mean_likelihood_of_response_tokens():
    objective = sft_objective(tiny_model())
    params = random_params(one_device())
    batch, plan = ONE
    part = micro_batch(batch, 0)
    run = jax.jit(objective)
    loss, metrics = run(params, part, minibatch_counts(batch, 1))
    score = policy_objective(
        tiny_model(),
        dataclasses.replace(toy_dapo(), loss=_mean_logprob, loss_inputs=()),
        temperature=1.0,
        num_groups=GROUPS,
    )
    mean, _ = jax.jit(score)(params, part, minibatch_counts(batch, GROUPS))
    np.testing.assert_allclose(loss, -mean, rtol=1e-6)
    assert float(metrics["entropy"][1]) == batch.mask[plan.micro, plan.slot].sum()


def _mean_logprob(logprobs, old, advantages, mask, counts):
    total = jnp.sum(jnp.where(mask, logprobs, 0.0))
    return total / counts.tokens, {}
