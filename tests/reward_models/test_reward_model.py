"""Scorers of responses: packed as alone, weighed by steps, and they learn to rank."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_reason.learner.forward import unpack
from jaxrl_reason.learner.state import init_state, init_value_state
from jaxrl_reason.learner.update import make_update
from jaxrl_reason.models import ValueModel
from jaxrl_reason.offline.preference_batch import Pair, PreferenceSettings
from jaxrl_reason.reward_models.reward_batch import (
    Comparison,
    as_comparisons,
    pack_comparisons,
)
from jaxrl_reason.reward_models.reward_methods import (
    PPM,
    RankingMethod,
    bradley_terry,
    process_preference,
    verifier,
)
from jaxrl_reason.reward_models.reward_model import (
    build_reward_model_learner,
    last_scores,
    ranking_objective,
    reward_model_scores,
    score_tokens,
    train_on_comparisons,
)
from jaxrl_reason.reward_models.step_preferences import (
    SearchStep,
    pick_sides,
    step_comparisons,
)
from jaxrl_reason.runs.metrics_log import finish_metrics
from tests.rl.helpers import (
    CONFIG,
    OPTIMIZER,
    VOCAB,
    copied,
    fake_rollouts,
    first_policy,
    one_device,
    same_trees,
)

SETTINGS = PreferenceSettings(
    pairs_per_update=8,
    epochs=12,
    rows_per_micro_batch=2,
    row_width=36,
    pairs_per_row=2,
    max_prompt=3,
    max_response=6,
)
UNEVEN = [
    Comparison([3, 4], [[7, 8], [9]], [[5, 6, 1], [4]]),
    Comparison([3], [[8]], [[5], [6, 6]]),
    Comparison([5, 5, 5], [[7]], [[4]]),
]


# Packing.


def test_a_comparison_stands_in_one_row_with_a_slot_for_each_candidate():
    batch, plan = pack_comparisons(SETTINGS, UNEVEN, (2, 2))
    assert len(plan.slot) == 4 + 3 + 2
    owner = batch.group_ids[plan.micro, plan.slot]
    assert owner.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    for i in range(3):
        mine = owner == i
        assert len({*zip(plan.micro[mine], plan.row[mine], strict=True)}) == 1
    assert (plan.slot % 4).tolist() == [0, 1, 2, 3, 0, 2, 3, 0, 2]
    starts = batch.starts[plan.micro, plan.slot]
    responses = [r for c in UNEVEN for r in (*c.chosen, *c.rejected)]
    for i, response in enumerate(responses):
        row = batch.tokens[plan.micro[i], plan.row[i]]
        first = starts[i] + 1
        assert row[first : first + len(response)].tolist() == response
        prompt = UNEVEN[owner[i]].prompt
        assert row[first - len(prompt) : first].tolist() == prompt
    assert batch.mask.sum() == sum(map(len, responses))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Comparison([3], [], [[5]]), "chosen must hold 1 to 2 responses, got 0 in"),
        (Comparison([3], [[7]], [[4], [5], [6]]), "rejected must hold 1 to 2 .* got 3"),
        (Comparison([], [[7]], [[5]]), "a prompt must have 1 to 3 tokens, got 0"),
        (Comparison([3], [[7]], [[5] * 7]), "1 to 6 tokens, got 7 in comparison 1"),
        (
            Comparison([3], [[7], [5]], [[5]]),
            "a response on both sides of comparison 1",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        pack_comparisons(SETTINGS, [UNEVEN[0], bad], (2, 2))


def test_pairs_are_comparisons_of_one_with_one():
    (found,) = as_comparisons([Pair([3], [7, 1], [5])])
    assert found == Comparison([3], [[7, 1]], [[5]])


# The objective, with a table of scores in place of a model.


def table_scores(params, batch):
    """The score after a token is that token's entry."""
    after = dataclasses.replace(batch, starts=batch.starts + 1)
    return unpack(params[batch.tokens], after)


def step_of(method, settings, table):
    batch, plan = pack_comparisons(settings, UNEVEN, method.candidates)
    optimizer = optax.sgd(1.0)
    objective = ranking_objective(table_scores, method)
    update = make_update(objective, optimizer, num_groups=settings.pairs_per_update)
    state = init_state(jnp.asarray(table), optimizer)
    state, metrics = update(state, batch, plan.num_active)
    return table - np.asarray(state.params), finish_metrics(metrics), plan


def by_hand(table):
    """Mean over steps of the mean over their pairs, and its gradient."""
    loss, slope, pairs = 0.0, np.zeros_like(table), []
    for c in UNEVEN:
        mine = [(w[-1], x[-1]) for w in c.chosen for x in c.rejected]
        for good, bad in mine:
            wrong = 1 / (1 + np.exp(table[good] - table[bad]))
            weight = 1 / len(mine) / len(UNEVEN)
            loss -= weight * np.log1p(-wrong)
            slope[good] -= weight * wrong
            slope[bad] += weight * wrong
            pairs.append(-np.log1p(-wrong))
    return loss, slope, np.mean(pairs)


def test_the_loss_is_a_mean_over_steps_of_means_over_their_pairs():
    table = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32)
    loss, slope, over_pairs = by_hand(table.astype(np.float64))
    narrow = dataclasses.replace(SETTINGS, rows_per_micro_batch=1, pairs_per_row=1)
    for settings, num_active in ((SETTINGS, 1), (narrow, 3)):
        step, row, plan = step_of(process_preference(), settings, table)
        assert plan.num_active == num_active
        np.testing.assert_allclose(row["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(step, slope, rtol=2e-5, atol=1e-7)
    # The mutant: a mean over all pairs, in which the steps with more pairs weigh more.
    assert abs(over_pairs - loss) > 1e-3


def test_the_score_of_a_response_is_that_of_its_last_token():
    scores = jnp.arange(12.0).reshape(3, 4)
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    assert last_scores(scores, jnp.asarray(mask)).tolist() == [3, 4, 0]
    slope = jax.grad(lambda x: last_scores(x, jnp.asarray(mask)).sum())(scores)
    expected = np.zeros((3, 4))
    expected[0, 3] = expected[1, 0] = 1
    np.testing.assert_array_equal(slope, expected)


@pytest.mark.parametrize("method", [bradley_terry(), verifier(lam=0.5)])
def test_pairs_train_by_bradley_terry_and_the_verifier_with_a_penalty(method):
    table = np.linspace(-1, 1, VOCAB).astype(np.float32)
    objective = ranking_objective(table_scores, method)
    update = make_update(objective, optax.sgd(1.0), num_groups=8)
    batch, plan = pack_comparisons(
        SETTINGS, [Comparison([3], [[2, 7]], [[9, 5]])], method.candidates
    )
    state = init_state(jnp.asarray(table), optax.sgd(1.0))
    _, metrics = update(state, batch, plan.num_active)
    good, bad = float(table[7]), float(table[5])
    expected = np.log1p(np.exp(bad - good))
    if method.name == "verifier":
        expected += 0.5 * (good**2 + bad**2) / 2
    np.testing.assert_allclose(finish_metrics(metrics)["loss"], expected, rtol=1e-6)


# Preferences of steps.


def node(q, *, right=False, wrong=False, prefix=(), tokens=(7,), final=False):
    return SearchStep(list(prefix), list(tokens), q, right, wrong, final)


def test_the_best_of_right_paths_stand_against_the_worst_of_wrong_ones():
    steps = [
        node(0.9, right=True, tokens=[1]),
        node(0.2, right=True, wrong=True, tokens=[2]),
        node(0.5, right=True, tokens=[3]),
        node(-0.9, wrong=True, tokens=[4]),
        node(-0.2, wrong=True, tokens=[5]),
        node(-0.5, wrong=True, tokens=[6]),
    ]
    (found,) = step_comparisons([8], steps)
    assert found == Comparison([8], [[1], [3]], [[4], [6]])
    (one,) = step_comparisons([8], steps, positives=1, negatives=3)
    assert one == Comparison([8], [[1]], [[4], [6], [5]])


def test_a_step_on_paths_of_both_kinds_is_on_one_side():
    both = [node(q, right=True, wrong=True, tokens=[i]) for i, q in enumerate([1, -1])]
    (found,) = step_comparisons([8], both)
    assert (found.chosen, found.rejected) == ([[0]], [[1]])
    alone = [node(0.0, right=True, wrong=True)]
    assert step_comparisons([8], alone) == []


def test_no_positive_has_a_q_at_or_below_that_of_a_negative():
    steps = [
        node(0.9, right=True),
        node(-0.5, right=True),
        node(0.1, wrong=True),
        node(0.9, wrong=True),
    ]
    good, bad = pick_sides(steps, 2, 2)
    assert [s.q for s in good] == [0.9]
    assert [s.q for s in bad] == [0.1]


def test_prefixes_do_not_mix_but_answers_do():
    steps = [
        node(0.5, right=True, tokens=[1]),
        node(0.1, wrong=True, prefix=[1], tokens=[2]),
        node(-0.5, wrong=True, tokens=[3]),
        node(1.0, right=True, prefix=[1], tokens=[4], final=True),
        node(-1.0, wrong=True, prefix=[3], tokens=[5], final=True),
    ]
    first, answers = step_comparisons([8, 9], steps)
    assert first == Comparison([8, 9], [[1]], [[3]])
    # Whole solutions to the question, whatever came before the answer.
    assert answers == Comparison([8, 9], [[1, 4]], [[3, 5]])
    below = [
        dataclasses.replace(s, prefix=[6, *s.prefix]) for s in (steps[0], steps[2])
    ]
    (found,) = step_comparisons([8, 9], below)
    assert found.prompt == [8, 9, 6]


def test_steps_and_methods_are_checked():
    with pytest.raises(ValueError, match="q must be finite, got nan"):
        node(float("nan"))
    with pytest.raises(ValueError, match="must have tokens, got none"):
        node(0.0, tokens=[])
    with pytest.raises(ValueError, match="must be >= 1, got 0 and 2"):
        step_comparisons([8], [], positives=0)
    with pytest.raises(ValueError, match="candidates must be >= 1, got"):
        RankingMethod("mine", None, candidates=(0, 1))


def test_the_recipe_says_what_is_published_and_what_is_not():
    assert PPM.method.candidates == (2, 2)
    assert PPM.method.tanh
    assert PPM.settings["positives per step"] == 2
    assert PPM.not_published
    assert PPM.not_built


# The transformer.


@cache
def parts():
    return build_reward_model_learner(
        ValueModel(CONFIG), PPM.method, SETTINGS, OPTIMIZER, one_device()
    )


def lucky_steps(seed, number=32):
    """Steps that begin with 7 are good, those that begin with 5 are not."""
    rng = np.random.default_rng(seed)

    def tail():
        return rng.integers(8, VOCAB, rng.integers(1, 5)).tolist()

    return [
        Comparison(
            rng.integers(8, VOCAB, rng.integers(1, 4)).tolist(),
            [[7, *tail()] for _ in range(rng.integers(1, 3))],
            [[5, *tail()] for _ in range(rng.integers(1, 3))],
        )
        for _ in range(number)
    ]


@cache
def trained():
    state = init_value_state(first_policy(), OPTIMIZER, one_device())
    start = copied(state.params)
    state, row = train_on_comparisons(parts(), state, lucky_steps(0))
    return start, state, row


def as_rollouts(comparisons):
    """Groups of one good and one bad response."""
    rollouts = fake_rollouts(np.tile([True, False], (len(comparisons), 1)))
    tokens, lengths = np.zeros_like(rollouts.tokens), rollouts.lengths.copy()
    prompts, sizes = np.zeros_like(rollouts.prompt_tokens), []
    for p, c in enumerate(comparisons):
        prompts[p, : len(c.prompt)] = c.prompt
        sizes.append(len(c.prompt))
        for g, response in enumerate((c.chosen[0], c.rejected[0])):
            tokens[p, g, : len(response)] = response
            lengths[p, g] = len(response)
    return dataclasses.replace(
        rollouts,
        tokens=tokens,
        lengths=lengths,
        prompt_tokens=prompts,
        prompt_lengths=np.array(sizes),
    )


def test_the_preference_model_learns_to_rank_steps_it_has_not_seen():
    start, state, row = trained()
    assert row["reward_model/updates"] == 12 * 4
    assert row["reward_model/comparisons"] == 32
    assert np.isfinite(list(row.values())).all()
    names = {"loss", "margin", "accuracy", "grad_norm", "skipped_update_fraction"}
    assert {f"reward_model/{name}" for name in names} <= set(row)
    assert row["reward_model/accuracy"] > 0.95
    assert not same_trees(start, copied(state.params))
    assert not np.asarray(start["value_head"]).any()
    scores = reward_model_scores(parts(), state.params, as_rollouts(lucky_steps(1)))
    assert (scores[:, 0] > scores[:, 1]).mean() > 0.9
    assert np.abs(scores).max() <= 1.0


def test_packed_scores_are_those_of_each_response_alone():
    _, state, _ = trained()
    # More responses than one call takes, of unequal lengths.
    rollouts = fake_rollouts(np.ones((9, 3)), seed=3)
    scores = score_tokens(parts(), state.params, rollouts)
    assert scores.shape == (9, 3, 6)
    model = ValueModel(CONFIG)
    rows = np.zeros((27, 9), np.int32)
    for i in range(27):
        prompt = rollouts.prompt_tokens[i // 3, : rollouts.prompt_lengths[i // 3]]
        response = rollouts.tokens[i // 3, i % 3, : rollouts.lengths[i // 3, i % 3]]
        rows[i, : len(prompt) + len(response)] = [*prompt, *response]
    places = np.broadcast_to(np.arange(9), rows.shape)
    alone = jax.jit(model.apply)(
        {"params": state.params}, rows, places, np.ones_like(rows)
    )
    alone = np.tanh(np.asarray(alone))
    last = reward_model_scores(parts(), state.params, rollouts)
    for i in range(27):
        first, n = rollouts.prompt_lengths[i // 3], rollouts.lengths[i // 3, i % 3]
        found = scores[i // 3, i % 3]
        np.testing.assert_allclose(
            found[:n], alone[i, first : first + n], rtol=1e-4, atol=1e-5
        )
        assert not found[n:].any()
        assert last[i // 3, i % 3] == found[n - 1]
    # The mutant: a critic's value, before the last token, is another number.
    before = [alone[i, rollouts.prompt_lengths[i // 3] - 1] for i in range(27)]
    assert np.abs(np.array(before) - scores[..., 0].reshape(-1)).max() > 0.01


def test_what_does_not_fit_is_refused():
    def build(**changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        return build_reward_model_learner(
            ValueModel(CONFIG), PPM.method, settings, OPTIMIZER, one_device()
        )

    with pytest.raises(ValueError, match=r"context_length \(24\), got 25"):
        build(max_response=22, row_width=200)
    with pytest.raises(ValueError, match=r"\(36 tokens\), got 35"):
        build(row_width=35)
    with pytest.raises(ValueError, match="at least one, got none"):
        train_on_comparisons(parts(), None, [])
    wide = fake_rollouts(np.ones((1, 2)), width=9, lengths=[[7, 2]])
    with pytest.raises(ValueError, match="1 to 6 tokens to be scored, got one of 7"):
        reward_model_scores(parts(), None, wide)
