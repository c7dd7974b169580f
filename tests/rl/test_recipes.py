"""Every recipe: a real run of two updates, its settings and its rewards."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from jaxrl_reason import losses
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.dapo import DAPO, DAPO_LADDER
from jaxrl_reason.rl.recipes.open_reasoner_zero import finished_accuracy
from jaxrl_reason.rl.recipes.recipe import Recipe
from jaxrl_reason.rl.recipes.reinforce_pp import logic_rewards
from jaxrl_reason.rl.recipes.skywork_or1 import rows_with_signal
from tests.rl.helpers import (
    fake_rollouts,
)
from tests.rl.recipe_helpers import built, moved, one_step, trained

# Those of every step, whatever the method.
METRICS = {
    "reward/mean reward/accuracy reward/format_fraction reward/grader_failed_fraction",
    "reward/unchecked_fraction",
    "groups/all_correct_fraction groups/all_wrong_fraction groups/accepted_fraction",
    "groups/accepted groups/sampled groups/surplus groups/rounds",
    "rollout/length_mean rollout/length_max rollout/truncated_fraction",
    "policy/clip_fraction_low policy/clip_fraction_high policy/ratio policy/entropy",
    "policy/approx_kl_k1 policy/approx_kl_k3 policy/grad_norm policy/loss",
    "policy/learning_rate policy/updates policy/skipped_update_fraction",
    "sampler/logprob_diff_mean sampler/logprob_diff_max sampler/kl_k1 sampler/kl_k3",
    "sampler/ess_fraction",
}
NAMES = {name for line in METRICS for name in line.split()}
OBJECTIVES = {
    *("policy/loss_0", "policy/loss_1", "policy/weight_0", "policy/weight_1"),
    "policy/gradient_conflict_fraction",
}
MORE = {
    "critic": {"critic/loss", "critic/grad_norm", "critic/skipped_update_fraction"},
    "vapo": {"policy/positive_nll"},
    "gigpo": {"steps/mean", "steps/shared_state_fraction"},
    "turn_ppo": {"steps/mean"},
    "gdpo": {"advantages/lost_group_ratio"},
    "sapo": {"policy/gate"},
    "dppo": {"policy/divergence"},
    "dppo_kl": {"policy/divergence"},
    "vespo": {"policy/phi"},
    "kimi_k2_5": {"policy/pull"},
    "decoupled_ppo": {"policy/behaviour_weight", "policy/behaviour_capped"},
    "kl_cov": {"policy/selected"},
    "clip_cov": {"policy/selected"},
    "prime": {"reward_model/loss", "reward_model/accuracy", "reward_model/score"},
    "skywork_or1": {"controller/entropy_coef", "controller/entropy_bonus"},
    "pcgrad": OBJECTIVES,
    "mgda": OBJECTIVES,
}
PUBLISHED_LIMIT = 20480


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_through_the_loop(name: str) -> None:
    method = built(name)
    start, end, row, _ = one_step(method)
    wanted = NAMES | MORE.get(name, set())
    if "critic" in trained(method):
        wanted = wanted | MORE["critic"]
        # With a head of 0 the first update moves nothing below it, and clipped values
        # may stop the second.
        heads = (x.models["critic"].params["value_head"] for x in (start, end))
        assert moved(*heads)
    if "kl_coef" in getattr(method.loss, "keywords", {}):
        wanted = wanted | {"policy/kl"}
    assert row.keys() >= wanted
    assert all(math.isfinite(value) for value in row.values()), row
    assert row["policy/updates"] == int(end.policy.step) == 2
    assert row["policy/skipped_update_fraction"] == 0
    assert moved(start.policy.params, end.policy.params)
    assert (end.reference is not None) == method.uses_reference
    if "reward_model" in trained(method):
        models = (x.models["reward_model"].params for x in (start, end))
        assert moved(*models)
    assert end.models.keys() == trained(method)
    assert method.name == name


def test_only_recipes_with_a_kl_term_keep_a_reference() -> None:
    with_reference = {name for name in RECIPES if built(name).uses_reference}
    assert with_reference == {
        *("deepseekmath", "r1_zero", "light_r1", "deepscaler", "intellect_2", "ppo"),
        "deepseek_v3_2",
        "gigpo",
        *("reinforce_pp", "reinforce_pp_baseline", "logic_rl", "rloo", "prime"),
    }
    for name in with_reference:
        assert RECIPES[name].settings.kl_coef != 0


def test_settings_are_those_that_the_method_is_built_with() -> None:
    for name, recipe in RECIPES.items():
        bound = getattr(recipe.build(PUBLISHED_LIMIT).loss, "keywords", {})
        if recipe.settings.clip is not None:
            assert (bound["clip_low"], bound["clip_high"]) == recipe.settings.clip
        if recipe.settings.kl_coef and name != "ppo":  # PPO's is in the reward
            assert bound["kl_coef"] == recipe.settings.kl_coef


def test_what_is_missing_is_said() -> None:
    # A setting of the run is published, or the recipe says that it is not.
    for recipe in RECIPES.values():
        assert recipe.sources or "repository" in recipe.settings.notes
        fields = ("learning_rate", "prompts", "group_size", "updates", "temperature")
        if any(getattr(recipe.settings, name) is None for name in fields):
            assert recipe.not_published, recipe.name


def test_recipes_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DAPO.name = "mine"
    with pytest.raises(TypeError):
        RECIPES["mine"] = DAPO


# The ladder.


def parts_of(recipe: Recipe) -> dict[str, object]:
    """The four parts of DAPO and clip-higher, read off the built method."""
    method = recipe.build(20)
    rollouts = fake_rollouts([[True, False]], lengths=[[20, 20]], width=20)
    return {
        "filtering": method.loss_rows is not None,
        "clip": method.loss.keywords["clip_high"],
        "soft": float(method.rewards(rollouts)[0, 0]),
        "loss": method.loss.func,
        "sampling": method.dynamic_sampling is not None,
    }


def test_a_rung_of_the_ladder_differs_from_the_one_before_in_one_part() -> None:
    rungs = [parts_of(recipe) for recipe in DAPO_LADDER]
    changes = [[name for name in a if a[name] != b[name]] for a, b in pairwise(rungs)]
    assert changes == [["filtering"], ["clip"], ["soft"], ["loss"], ["sampling"]]
    assert rungs[0]["loss"] is losses.grpo_loss
    assert rungs[-1]["loss"] is losses.dapo_loss
    assert rungs[0]["soft"] == 1.0
    assert rungs[-1]["soft"] == 0.0  # right, and punished to the full
    # DAPO itself is the last rung without filtering.
    assert parts_of(DAPO) == rungs[-1] | {"filtering": False}


def test_the_cache_of_dapo_is_a_fifth_of_the_limit() -> None:
    rollouts = fake_rollouts([[True] * 4], lengths=[[16, 17, 18, 20]], width=20)
    rewards = DAPO.build(20).rewards(rollouts)
    np.testing.assert_allclose(rewards, [[1.0, 0.75, 0.5, 0.0]], rtol=1e-6)


# Rewards and rows.


def test_rewards_of_the_recipes() -> None:
    rollouts = dataclasses.replace(
        fake_rollouts([[1, 1, 0, 0]]),
        truncated=np.array([[False, True, False, False]]),
        format_ok=np.array([[True, True, True, False]]),
    )
    np.testing.assert_array_equal(finished_accuracy(rollouts), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(logic_rewards(rollouts), [[3, 3, -0.5, -3]])
    np.testing.assert_array_equal(built("r1_zero").rewards(rollouts), [[2, 2, 1, 0]])


def test_skywork_takes_groups_without_signal_out_of_the_loss() -> None:
    rollouts = fake_rollouts([[1, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(
        rows_with_signal(rollouts), [[False] * 2, [True] * 2, [False] * 2]
    )
    assert built("skywork_or1").loss_rows is rows_with_signal
