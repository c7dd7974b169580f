"""Coefficients that move: the entropy bonus and the weight of the KL."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from jaxrl_reason.losses import ppo_loss
from jaxrl_reason.rl.controller import entropy_controller, kl_controller
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rollouts import binary_accuracy
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    EndlessProblems,
    run_steps,
    toy_learner,
    toy_state,
)
from tests.rl.test_loop_parts import stream

# Coefficients that move.


def controlled(target: float):
    """GRPO's advantages under PPO's loss with an entropy bonus that is controlled."""
    return dataclasses.replace(
        grpo(kl_coef=0),
        name="controlled",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        rewards=binary_accuracy,
        components=(entropy_controller(target=target, step=0.01, high=0.025),),
    )


def test_the_entropy_bonus_follows_the_measured_entropy_a_step_behind():
    learner = toy_learner(controlled(target=5.0))  # above log 12: always too low
    with CompileCounter() as counter:
        state, rows, _ = run_steps(learner, toy_state(learner), stream(), 2)
        mark = counter.count
        state, more, _ = run_steps(learner, state, EndlessProblems(4), 2)
        assert counter.since(mark) == 0  # the weight is traced
    weights = [row["controller/entropy_coef"] for row in rows + more]
    np.testing.assert_allclose(weights, [0.0, 0.01, 0.02, 0.025], rtol=1e-6)
    assert state.controls["entropy_bonus"] == pytest.approx(0.025)
    # Sampled and full entropy measure the same thing, up to the noise of a batch.
    assert rows[0]["policy/entropy_sampled"] == pytest.approx(
        rows[0]["policy/entropy"], rel=0.2
    )


def test_the_weight_of_the_bonus_reaches_the_loss():
    batches = []

    def record(policy, batch, num_active, **given):
        batches.append(given)
        return policy, {}

    learner = dataclasses.replace(toy_learner(controlled(target=5.0)), update=record)
    run_steps(learner, toy_state(learner), stream(), 2)
    assert [x["entropy_coef"] for x in batches] == [
        0.0,
        0.0,
        pytest.approx(0.01),
        pytest.approx(0.01),
    ]


def test_the_kl_weight_in_the_reward_follows_the_kl():
    controller = kl_controller(start=0.1, target=0.5, horizon=100, num_samples=16)
    learner = toy_learner(ppo(kl_coef=0.1, controller=controller))
    seen = []
    advantages = learner.advantages

    def record(x):
        seen.append(x)
        return advantages(x)

    learner = dataclasses.replace(learner, advantages=record)
    _, rows, _ = run_steps(learner, toy_state(learner), stream(), 2)
    assert [float(x["kl_coef"]) for x in seen] == pytest.approx(
        [row["controller/kl_coef"] for row in rows]
    )
    # The first KL is 0, so the weight falls by 0.2 * 16 / 100.
    assert rows[0]["policy/reference_kl_k1"] == pytest.approx(0.0, abs=1e-6)
    assert rows[1]["controller/kl_coef"] == pytest.approx(0.1 * (1 - 0.2 * 16 / 100))
    # The weight reaches the rewards: another one gives other returns.
    x = seen[1]
    other = dataclasses.replace(x, inputs={**x.inputs, "kl_coef": np.float32(5.0)})
    assert not np.allclose(advantages(x).returns, advantages(other).returns)


def test_a_controller_of_ppo_needs_a_weight_to_move():
    controller = kl_controller(start=0.1, target=0.5, horizon=100, num_samples=16)
    with pytest.raises(ValueError, match="needs a kl_coef > 0, got 0"):
        ppo(controller=controller)
