"""A response that the limit cut off may end in the critic's value."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.toys.toy_tasks import EndlessProblems
from jaxrl_reason.models import ValueModel
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.recipes.vc_ppo import VC_PPO
from jaxrl_reason.rl.rl_learner import RLState
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.rl.rollouts import Rollouts, signed_accuracy
from tests.rl.helpers import (
    CONFIG,
    SETTINGS,
    no_update,
    run_steps,
    toy_learner,
    toy_state,
)

BOOTSTRAP = dataclasses.replace(SETTINGS, bootstrap_truncated=True)
SIGNED_PPO = dataclasses.replace(ppo(gamma=0.9, lam=0.8), rewards=signed_accuracy)


def with_opinions(state: RLState) -> RLState:
    """A critic whose head is not 0."""
    critic = state.models["critic"]
    head = critic.params["value_head"]
    drawn = np.random.default_rng(0).standard_normal(head.shape, np.float32)
    params = {**critic.params, "value_head": jax.device_put(drawn, head.sharding)}
    critic = dataclasses.replace(critic, params=params)
    return dataclasses.replace(state, models={"critic": critic})


def one_step(settings: RLSettings):
    """What an estimator sees, the critic's parameters, rollouts, metrics.

    Nothing is updated.
    """
    learner, seen = toy_learner(SIGNED_PPO, settings), []
    advantages = learner.advantages

    def record(x):
        seen.append(x)
        return advantages(x)

    critics = (
        dataclasses.replace(c, update=no_update, plan=learner.plan)
        for c in learner.components
    )
    learner = dataclasses.replace(
        learner, advantages=record, update=no_update, components=tuple(critics)
    )
    state = with_opinions(toy_state(learner))
    params = jax.device_get(state.models["critic"].params)
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, (row,), (collected,) = run_steps(learner, state, stream, 1)
    return seen[0], params, collected.rollouts, row


def plain_values(params, rollouts: Rollouts) -> list[np.ndarray]:
    """For each response the values of the states from its prompt's end to its own.

    A row for each, nothing packed: n + 1 values for n tokens.
    """
    lengths, g = rollouts.lengths.reshape(-1), rollouts.lengths.shape[1]
    starts = np.repeat(rollouts.prompt_lengths, g)
    tokens = np.zeros((len(lengths), CONFIG.context_length), int)
    for i, (first, n) in enumerate(zip(starts, lengths, strict=True)):
        tokens[i, :first] = rollouts.prompt_tokens[i // g, :first]
        tokens[i, first : first + n] = rollouts.tokens[i // g, i % g, :n]
    columns = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    segments = (columns < (starts + lengths)[:, None]).astype(int)
    apply = jax.jit(ValueModel(CONFIG).apply)
    values = np.asarray(apply({"params": params}, tokens, columns, segments))
    ends = zip(values, starts, lengths, strict=True)
    return [row[first - 1 : first + n] for row, first, n in ends]


def recursion(rewards, values, gamma, lam):
    """GAE by its definition: n rewards, n + 1 values."""
    later, out = 0.0, np.zeros(len(rewards))
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * values[t + 1] - values[t]
        out[t] = later = delta + gamma * lam * later
    return out


@pytest.fixture(scope="module")
def bootstrapped():
    return one_step(BOOTSTRAP)


def test_the_value_after_a_truncated_response_is_that_of_a_plain_pass(bootstrapped):
    x, params, rollouts, row = bootstrapped
    truncated = rollouts.truncated.reshape(-1)
    assert truncated.any()
    assert not truncated.all()
    every = plain_values(params, rollouts)
    for i, values in enumerate(every):
        n = len(values) - 1
        np.testing.assert_allclose(x["values"][i, :n], values[:n], atol=1e-5)
    after = np.array([values[-1] for values in every])
    wanted = np.where(truncated, after, 0.0)
    np.testing.assert_allclose(x["bootstrap"], wanted, atol=1e-5)
    mean = after[truncated].mean()
    assert row["critic/bootstrap_mean"] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "gamma", "actor_lambda", "critic_lambda"),
    [(SIGNED_PPO, 0.9, 0.8, 0.8), (VC_PPO.build(6), 1.0, 0.95, 1.0)],
    ids=["ppo", "vc_ppo"],
)
def test_a_truncated_response_ends_in_that_value(
    bootstrapped, method, gamma, actor_lambda, critic_lambda
):
    x, params, rollouts, _ = bootstrapped
    estimate = method.advantages(x)
    raw, targets = np.zeros(x.mask.shape), np.zeros(x.mask.shape)
    for i, values in enumerate(plain_values(params, rollouts)):
        n = len(values) - 1
        rewards = np.zeros(n)
        if not x.truncated[i]:  # else the value stands for the grade
            rewards[-1], values = x.rewards[i], np.append(values[:n], 0.0)
        raw[i, :n] = recursion(rewards, values, gamma, actor_lambda)
        of_critic = recursion(rewards, values, gamma, critic_lambda)
        targets[i, :n] = of_critic + values[:n]
    np.testing.assert_allclose(estimate.returns, targets, atol=2e-5)
    mean, std = raw[x.mask].mean(), raw[x.mask].std(ddof=1)
    wanted = np.where(x.mask, (raw - mean) / std, 0.0)
    np.testing.assert_allclose(estimate.advantages, wanted, atol=1e-4)


def test_without_it_a_response_ends_where_it_stops():
    x, params, rollouts, row = one_step(SETTINGS)
    assert "bootstrap" not in x.inputs
    assert "critic/bootstrap_mean" not in row
    estimate = SIGNED_PPO.advantages(x)
    for i, values in enumerate(plain_values(params, rollouts)):
        n = len(values) - 1
        np.testing.assert_allclose(x["values"][i, :n], values[:n], atol=1e-5)
        rewards = np.zeros(n)
        rewards[-1] = x.rewards[i]
        found = recursion(rewards, np.append(values[:n], 0.0), 0.9, 0.8)
        np.testing.assert_allclose(
            estimate.returns[i, :n], found + values[:n], atol=2e-5
        )
