"""What a stage does with the models of the stage before it."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.rl.stage_parts import Stage, build_stages
from jaxrl_reason.rl.stages import (
    begin_stage,
    carry_models,
)
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    EndlessProblems,
    LuckyTask,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
    toy_dapo,
)
from tests.rl.stage_helpers import after, toy_stages


def staged(*methods, **more):
    stages = [
        Stage(f"{i}", SETTINGS, method, OPTIMIZER, lambda _: EndlessProblems(4), **more)
        for i, method in enumerate(methods)
    ]
    return build_stages(tiny_model(), LuckyTask(), stages, one_device())


@pytest.mark.parametrize("fresh", [False, True])
def test_a_critic_is_carried_and_made_where_it_is_first_needed(fresh):
    run = staged(ppo(), ppo(), grpo(kl_coef=0), ppo(), fresh_optimizer=fresh)
    before = after(run)
    found = carry_models(run, 1, before)
    policy, critic = found["policy"], found["models"]["critic"]
    old = before.models["critic"]
    assert same_trees(policy.params, before.policy.params)
    assert same_trees(critic.params, old.params)
    assert int(policy.step) == int(critic.step) == (0 if fresh else 1)
    assert same_trees(policy.opt_state, before.policy.opt_state) != fresh
    assert same_trees(critic.opt_state, old.opt_state) != fresh
    assert carry_models(run, 2, before)["models"] == {}
    without = dataclasses.replace(before, models={})
    made = carry_models(run, 3, without)["models"]["critic"]
    assert not np.any(made.params["value_head"])
    backbone = {k: v for k, v in before.policy.params.items() if k != "head"}
    assert same_trees(made.params["backbone"], backbone)


def test_a_reward_model_and_a_controller_are_carried_too():
    base = RECIPES["prime"].build(SETTINGS.max_new_tokens)
    more = RECIPES["skywork_or1"].build(SETTINGS.max_new_tokens).components
    method = dataclasses.replace(base, components=(*base.components, *more))
    run = staged(method, method, grpo(kl_coef=0))
    before = init_rl_state(run.learner[0], first_policy())
    moved = jax.tree.map(lambda x: x + 1, before.models)
    controls = {"entropy_bonus": 0.5, "entropy_coef": 0.0}
    before = dataclasses.replace(before, models=moved, controls=controls)
    found = carry_models(run, 1, before)
    assert same_trees(found["models"], moved)
    assert found["controls"] == controls
    gone = carry_models(run, 2, before)
    assert (gone["models"], gone["controls"]) == ({}, {})


def test_the_reference_is_the_initial_policy_until_a_stage_refreshes_it(tmp_path):
    kl, plain = grpo(kl_coef=0.1), grpo(kl_coef=0)
    run = staged(plain, kl)
    folder = CheckpointFolder(tmp_path)
    before = after(run, step=SETTINGS.steps)
    now = begin_stage(run, 1, before, first_policy(), folder)
    assert same_trees(now.state.reference, first_policy().params)
    refreshed = dataclasses.replace(run.stages[1], fresh_reference=True)
    run = dataclasses.replace(run, stages=(run.stages[0], refreshed))
    now = begin_stage(run, 1, before, first_policy(), folder)
    assert same_trees(now.state.reference, before.policy.params)
    # A copy: the first update donates the policy.
    ours = jax.tree.leaves(now.state.reference)[0].unsafe_buffer_pointer()
    theirs = jax.tree.leaves(before.policy.params)[0].unsafe_buffer_pointer()
    assert ours != theirs
    back = begin_stage(staged(kl, plain), 1, before, first_policy(), folder)
    assert back.state.reference is None


def test_stages_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"different names, got \['a', 'a'\]"):
        build_stages(
            tiny_model(),
            LuckyTask(),
            [dataclasses.replace(s, name="a") for s in toy_stages()[:2]],
            one_device(),
        )
    with pytest.raises(ValueError, match="fresh_reference needs a method with a ref"):
        staged(toy_dapo(), fresh_reference=True)
    with pytest.raises(ValueError, match="must have different names"):
        staged()
    # A length limit of a later stage that the model has no room for shows at once.
    long = dataclasses.replace(SETTINGS, max_new_tokens=30, row_width=40)
    stages = [*toy_stages()[:2], dataclasses.replace(toy_stages()[2], settings=long)]
    with pytest.raises(ValueError, match=r"context_length \(24\), got 33"):
        build_stages(tiny_model(), LuckyTask(), stages, one_device())
