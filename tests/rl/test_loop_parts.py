"""Components of a method: critic, greedy baseline, implicit reward, reward parts."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_reason.learner.state import init_state
from jaxrl_reason.rl.collect import (
    compute_rewards,
)
from jaxrl_reason.rl.controller import entropy_controller
from jaxrl_reason.rl.greedy_baseline import greedy_rewards
from jaxrl_reason.rl.method import DynamicSampling, Experience
from jaxrl_reason.rl.recipes.gdpo import GDPO
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.recipes.prime import PRIME
from jaxrl_reason.rl.recipes.remax import REMAX
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.rl.rollouts import accuracy_and_format
from tests.rl.helpers import (
    ENDS,
    OPTIMIZER,
    SETTINGS,
    EndlessProblems,
    copied,
    fake_rollouts,
    one_device,
    random_params,
    run_steps,
    same_trees,
    tiny_model,
    toy_dapo,
    toy_learner,
    toy_state,
)

LIMIT = SETTINGS.max_new_tokens


def stream() -> EndlessProblems:
    return EndlessProblems(SETTINGS.prompts_per_step)


# The critic.


@pytest.fixture(scope="module")
def calibrated():
    """PPO whose critic learns alone for six steps and makes four updates a step."""
    settings = dataclasses.replace(
        SETTINGS, critic_updates_per_rollout=4, value_pretraining_steps=6
    )
    learner = toy_learner(ppo(value_clip=None), settings)
    start = toy_state(learner)
    before = copied(start)
    state, rows, _ = run_steps(learner, start, stream(), 6)
    return learner, before, state, rows


def test_value_pretraining_moves_the_critic_and_not_one_bit_of_the_policy(calibrated):
    _, before, state, rows = calibrated
    assert same_trees(before.policy, copied(state.policy))
    assert not same_trees(
        before.models["critic"].params, copied(state.models["critic"].params)
    )
    assert {row["policy/updates"] for row in rows} == {0}
    assert all("policy/grad_norm" not in row for row in rows)
    assert all(row["critic/loss"] > 0 for row in rows)


def test_the_critic_makes_updates_of_its_own_number(calibrated):
    learner, _, state, _ = calibrated
    assert int(state.models["critic"].step) == 6 * 4
    assert learner.components[0].plan.groups_per_minibatch == 1
    assert learner.plan.groups_per_minibatch == 2


def test_a_pretrained_critic_explains_more_than_one_that_knows_nothing(calibrated):
    _, _, _, rows = calibrated
    assert rows[0]["critic/explained_variance"] == 0.0  # its head is zero
    assert rows[0]["critic/loss"] > 1.5 * rows[-1]["critic/loss"]


def test_after_pretraining_the_policy_learns_too(calibrated):
    learner, _, state, _ = calibrated
    before = copied(state.policy.params)
    critic = copied(state.models["critic"])
    state = dataclasses.replace(
        state,
        policy=jax.tree.map(lambda x: x.copy(), state.policy),
        models=jax.tree.map(lambda x: x.copy(), state.models),
    )
    state, (row,), _ = run_steps(learner, state, stream(), 1)
    assert row["policy/updates"] == int(state.policy.step) == 2
    assert int(state.models["critic"].step) == int(critic.step) + 4
    assert not same_trees(before, copied(state.policy.params))


# The greedy baseline.


def test_the_greedy_baseline_is_the_reward_of_the_greedy_response():
    learner = toy_learner(REMAX.build(LIMIT))
    seen = []
    advantages = learner.advantages

    def record(x):
        seen.append(x)
        return advantages(x)

    learner = dataclasses.replace(learner, advantages=record)
    state = toy_state(learner)
    params = copied(state.policy.params)
    _, _, (found,) = run_steps(learner, state, stream(), 1)
    # The greedy response to every prompt, found token by token.
    rollouts = found.rollouts
    for i in range(len(rollouts.problem_ids)):
        n = rollouts.prompt_lengths[i]
        prompt = rollouts.prompt_tokens[i, :n]
        response, truncated = greedy(params, list(prompt))
        right = response[0] in (7, 8, 9) and not truncated
        assert (rollouts.extras["greedy_rewards"][i] == float(right)).all()
    wanted = rollouts.extras["greedy_rewards"].reshape(-1)
    np.testing.assert_array_equal(seen[0]["greedy_rewards"], wanted)
    estimate = np.asarray(advantages(seen[0]).advantages)
    np.testing.assert_allclose(estimate, rollouts.rewards.reshape(-1) - wanted)


@jax.jit
def hidden_states(params, tokens, positions, segments):
    return tiny_model().apply({"params": params}, tokens, positions, segments)


def greedy(params, tokens):
    """Greedy decoding without a cache."""
    response = []
    while len(response) < LIMIT:
        width = 3 + LIMIT
        row = np.zeros((1, width), np.int32)
        n = len(tokens)
        row[0, :n] = tokens
        segments = (np.arange(width) < n).astype(np.int32)[None]
        hidden = hidden_states(params, row, np.arange(width)[None], segments)
        logits = np.asarray(hidden[0, n - 1]) @ np.asarray(params["embedding"]).T
        response.append(int(np.argmax(logits)))
        tokens = [*tokens, response[-1]]
        if response[-1] in ENDS:
            return response, False
    return response, True


def test_a_greedy_response_that_nobody_can_judge_is_no_baseline():
    learner = toy_learner(REMAX.build(LIMIT))
    samples = fake_rollouts([[1, 1, 0, 1], [0, 0, 0, 1]])
    one = dataclasses.replace(
        fake_rollouts([[0], [1]]), failed=np.array([[True], [False]])
    )
    assert greedy_rewards(learner.method, one, samples).tolist() == [0.75, 1.0]


def test_one_response_a_prompt_is_enough_where_no_group_is_compared():
    assert REMAX.build(LIMIT).min_group_size == 1
    assert ppo().min_group_size == 1
    assert grpo().min_group_size == toy_dapo().min_group_size == 2


# The implicit reward.


def test_the_implicit_reward_learns_from_outcomes_and_the_reference_stays():
    # The policy is kept as it is, so that there are enough outcomes to learn from.
    learner = dataclasses.replace(
        toy_learner(PRIME.build(LIMIT)),
        update=lambda policy, batch, num_active: (policy, {}),
    )
    losses, accuracies = [], []
    for seed in (7, 101, 104):
        policy = init_state(random_params(one_device(), seed), OPTIMIZER.build())
        state = init_rl_state(learner, policy)
        start = copied((state.policy, state.models["reward_model"], state.reference))
        state, rows, _ = run_steps(learner, state, stream(), 36)
        assert same_trees(start[0], copied(state.policy))
        assert same_trees(start[2], copied(state.reference))
        model = copied(state.models["reward_model"])
        assert not same_trees(start[1].params, model.params)
        names = {"reward_model/loss", "reward_model/accuracy", "reward_model/score"}
        assert names <= rows[0].keys()
        # Untrained, it says 0 of everything: log 2.
        assert rows[0]["reward_model/loss"] == pytest.approx(np.log(2), rel=0.05)
        losses += [row["reward_model/loss"] for row in rows[-8:]]
        accuracies += [row["reward_model/accuracy"] for row in rows[-8:]]
    # Then it tells right from wrong. Of three policies together, since rounding alone
    # moves the loss of one from 0.45 to 0.52.
    assert np.mean(losses) < 0.55
    assert np.mean(accuracies) > 0.75


# Several rewards.


def test_components_add_up_to_the_reward_and_reach_the_estimator():
    learner = toy_learner(GDPO.build(LIMIT))
    seen = []
    advantages = learner.advantages

    def record(x):
        seen.append(x)
        return advantages(x)

    learner = dataclasses.replace(
        learner,
        advantages=record,
        update=lambda policy, batch, num_active: (policy, {}),
    )
    _, (row,), (found,) = run_steps(learner, toy_state(learner), stream(), 1)
    rollouts = found.rollouts
    parts = rollouts.extras["reward_components"]
    assert parts.shape == (*rollouts.correct.shape, 2)
    np.testing.assert_array_equal(parts[..., 0], rollouts.correct)
    np.testing.assert_array_equal(parts[..., 1], rollouts.format_ok)
    np.testing.assert_array_equal(parts.sum(-1), rollouts.rewards)
    assert seen[0]["reward_components"].shape == (SETTINGS.sequences, 2)
    assert row["reward/mean"] == pytest.approx(rollouts.rewards.mean())


def test_a_component_that_is_not_finite_counts_as_a_failed_grade():
    def rewards(rollouts):
        components = accuracy_and_format(rollouts)
        components[0, 1, 1] = np.nan
        return components

    method = dataclasses.replace(GDPO.build(LIMIT), rewards=rewards)
    found = compute_rewards(method, fake_rollouts([[1, 1, 0], [0, 1, 0]]))
    assert found.failed.tolist() == [[False, True, False], [False] * 3]
    # The mean of the group's others, in every component.
    parts = found.extras["reward_components"]
    np.testing.assert_allclose(parts[0, 1], [0.5, 1.0])
    assert np.isfinite(found.rewards).all()


def test_rewards_of_another_shape_are_refused():
    method = dataclasses.replace(
        grpo(), rewards=lambda rollouts: np.zeros((2, 3, 1, 1))
    )
    with pytest.raises(ValueError, match=r"shape \[P, G\] = \(2, 3\) of the"):
        compute_rewards(method, fake_rollouts([[1, 1, 0], [0, 1, 0]]))


def test_settings_of_a_method_are_checked():
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got"):
            DynamicSampling(fraction=fraction)
    twice = (entropy_controller(), entropy_controller())
    with pytest.raises(ValueError, match="components must be of different kinds"):
        dataclasses.replace(grpo(), components=twice)


def test_an_input_that_nothing_gives_is_refused_by_name():
    row, tokens = np.zeros(1), np.zeros((1, 1))
    x = Experience(row, row, row, tokens, row, tokens, num_groups=1)
    with pytest.raises(ValueError, match="gives 'values' to its advantages, got"):
        ppo().advantages(dataclasses.replace(x, inputs={"correct": np.ones(1)}))
