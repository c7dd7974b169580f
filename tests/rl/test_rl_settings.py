"""Settings of an RL run are checked."""

import dataclasses
import math

import jax
import pytest

from jaxrl_reason.rl.rl_learner import RLSettings, build_rl_learner
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    copied,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
    toy_dapo,
    toy_learner,
    toy_state,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, r"temperature must be from 0.001 on .* got 0.0"),
        ({"temperature": math.nan}, r"temperature must be from 0.001 on .* got nan"),
        ({"group_size": 0}, "group_size must be >= 1, got 0"),
        ({"value_pretraining_steps": -1}, "value_pretraining_steps must be >= 0, got"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"max_rounds": 0}, "max_rounds must be >= 1, got 0"),
        ({"old_logprobs": "both"}, "must be one of .*, got 'both'"),
    ],
)
def test_rl_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        RLSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 1}, "group_size must be >= 2 for dapo, got 1"),
        ({"critic_updates_per_rollout": 2}, "must be 0 for dapo, which has no critic"),
        ({"value_pretraining_steps": 1}, "must be 0 for dapo, which has no critic"),
        ({"bootstrap_truncated": True}, "must be False for dapo, which has no critic"),
    ],
)
def test_settings_must_fit_the_method(changes, message):
    settings = dataclasses.replace(SETTINGS, **changes)
    with pytest.raises(ValueError, match=message):
        build_rl_learner(
            tiny_model(), LuckyTask(), toy_dapo(), settings, OPTIMIZER, one_device()
        )


def test_prompt_and_response_must_fit_the_context():
    settings = dataclasses.replace(SETTINGS, prompt_width=19, row_width=40)
    with pytest.raises(ValueError, match=r"context_length \(24\), got 25"):
        build_rl_learner(
            tiny_model(), LuckyTask(), toy_dapo(), settings, OPTIMIZER, one_device()
        )


def test_the_policy_that_was_handed_in_is_left_alone():
    before = copied(first_policy().params)
    learner = toy_learner(toy_dapo())
    state = toy_state(learner)
    assert not any(x is y for x, y in zip(
        jax.tree.leaves(state.policy.params), jax.tree.leaves(first_policy().params),
        strict=True,
    ))  # fmt: skip
    assert same_trees(before, first_policy().params)
