"""Offline recipes: their values, their page, and the rounds that they bind."""

import dataclasses
from functools import partial

import pytest

from jaxrl_reason.data.rejection_sampling import equation_signature
from jaxrl_reason.learner.state import init_state
from jaxrl_reason.offline.iterative import (
    iterative_dpo_round,
    rft_round,
    star_round,
    train_on_examples,
)
from jaxrl_reason.offline.offline_recipes import OFFLINE
from jaxrl_reason.offline.preference_training import (
    build_preference_learner,
    train_on_pairs,
)
from jaxrl_reason.offline.sample_rounds import as_examples, sample_round
from tests.offline.pair_helpers import METHODS
from tests.offline.test_iterative import (
    PAIRS,
    PROBLEMS,
    sampler,
    supervised,
)
from tests.rl.helpers import (
    OPTIMIZER,
    copied,
    first_policy,
    one_device,
    same_trees,
    tiny_model,
)


def test_names_sources_and_what_is_open_are_said():
    for name, recipe in OFFLINE.items():
        assert recipe.name == name
        assert recipe.sources or name == "cdpo"  # of TRL and OpenRLHF
        assert recipe.not_published
    with pytest.raises(dataclasses.FrozenInstanceError):
        OFFLINE["dpo"].name = "mine"
    with pytest.raises(TypeError):
        OFFLINE["mine"] = OFFLINE["dpo"]


def test_every_loss_on_pairs_is_one_that_is_trained_in_the_tests():
    # test_preference trains each of these on the tiny model.
    trained = {method.loss for method in METHODS}
    recipes = [r for r in OFFLINE.values() if r.method is not None]
    assert {r.method.loss for r in recipes} == trained
    assert {r.run for r in recipes if r.name != "irpo"} == {train_on_pairs}


def test_published_settings_are_bound():
    assert OFFLINE["dpo"].method.settings["beta"] == 0.1
    assert OFFLINE["cdpo"].method.settings["label_smoothing"] == 0.1
    assert OFFLINE["light_r1_dpo"].method.settings["beta"] == 0.3
    assert OFFLINE["simpo"].method.settings == {"beta": 2.5, "gamma": 1.375}
    assert OFFLINE["orpo"].method.settings == {"lam": 0.1}
    assert OFFLINE["irpo"].run.func is iterative_dpo_round
    assert OFFLINE["irpo"].run.keywords == {"max_pairs": 10}
    assert OFFLINE["rft"].run.func is rft_round
    assert OFFLINE["rft"].run.keywords == {"signature": equation_signature}
    assert OFFLINE["star"].run.func is star_round
    assert OFFLINE["star"].run.keywords == {"max_per_prompt": 1}


def rft():
    return OFFLINE["rft"].run(
        sampler(), supervised(), OPTIMIZER, first_policy(), PROBLEMS
    )[:2]


def star():
    policy = first_policy()
    return OFFLINE["star"].run(
        sampler(), supervised(), OPTIMIZER, policy, policy, PROBLEMS, round_index=0
    )[:2]


def irpo():
    recipe = OFFLINE["irpo"]
    learner = build_preference_learner(
        tiny_model(), recipe.method, PAIRS, OPTIMIZER, one_device()
    )
    return recipe.run(sampler(), learner, first_policy(), PROBLEMS, round_index=0)[:2]


def fine_tuning(name):
    rollouts = sample_round(sampler(), first_policy().params, PROBLEMS, draw=0)
    state = init_state(first_policy().params, OPTIMIZER.build(), copy=True)
    return OFFLINE[name].run(
        supervised(), state, as_examples(rollouts, rollouts.correct), epochs=1, seed=0
    )


@pytest.mark.parametrize(
    ("run", "group"),
    [
        (rft, "sft"),
        (star, "sft"),
        (irpo, "preference"),
        (partial(fine_tuning, "sft"), "sft"),
        (partial(fine_tuning, "light_r1_sft"), "sft"),
    ],
    ids=["rft", "star", "irpo", "sft", "light_r1_sft"],
)
def test_rounds_run_on_the_tiny_model(run, group):
    before = copied(first_policy().params)
    state, row = run()
    assert row[f"{group}/updates"] == int(state.step) > 0
    assert row[f"{group}/skipped_update_fraction"] == 0
    assert not same_trees(before, copied(state.params))
    assert same_trees(before, copied(first_policy().params))


def test_the_page_names_every_recipe(root):
    page = (root / "docs" / "offline.md").read_text("utf-8")
    for name in OFFLINE:
        assert f"`{name}`" in page
    assert OFFLINE["sft"].run is train_on_examples
