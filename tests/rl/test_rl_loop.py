"""The RL loop: its rows, its evaluations, what its checkpoints hold."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_loop import resume_rl, save_rl, train_rl
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.runs.profile import StepProfile
from tests.rl.helpers import (
    SETTINGS,
    fake_rollouts,
    same_trees,
    toy_learner,
    toy_state,
)
from tests.rl.loop_helpers import FINGERPRINT, STEPS, hooks, loop_learner, stream


@pytest.fixture(scope="module")
def learner():
    return loop_learner()


def test_rows_have_what_the_loop_measures(learner, tmp_path):
    used = hooks(tmp_path, profile=StepProfile(3, tmp_path / "profile"))
    with used.log:
        train_rl(learner, toy_state(learner), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert used.progress.steps == list(range(1, STEPS + 1))
    for row in rows:
        phases = [row[f"time/{name}_s"] for name in ("rollout", "grade", "train")]
        assert all(seconds > 0 for seconds in phases)
        assert sum(phases) <= row["time/step_s"]
        assert row["train/tokens"] <= SETTINGS.sequences * SETTINGS.max_new_tokens
        assert (
            row["rollout/tokens"] >= row["train/tokens"] or row["groups/surplus"] >= 0
        )
        for phase in ("rollout", "train"):
            rate = row[f"{phase}/tokens"] / row[f"time/{phase}_s"]
            assert row[f"{phase}/tokens_per_s"] == pytest.approx(rate)
        assert "heldout/accuracy" not in row
    assert [row["time/compiles"] for row in rows[2:]] == [0] * (STEPS - 2)
    # save_every=2, and the last step is saved in any case.
    assert used.checkpoints.steps() == [2, 4, 6]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_the_docs_name_every_metric_and_no_other(learner, tmp_path, root):
    used = hooks(
        tmp_path, evaluate=lambda _: {"heldout/accuracy": 0.5}, evaluate_every=2
    )
    with used.log:
        train_rl(learner, toy_state(learner), stream(), used)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    page = (root / "docs" / "runs.md").read_text("utf-8")
    section = page.split("## metrics.jsonl")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line[:3] == "| `"]
    documented = set(re.findall(r"`([\w/]+)`", " ".join(cells)))
    # Of other methods than DAPO, of runs in stages and of serving engines.
    others = ("critic/", "reward_model/", "teacher/", "controller/", "data/")
    others += ("steps/", "advantages/")
    elsewhere = {name for name in documented if name.startswith(others)}
    elsewhere |= {"policy/clip_fraction_dual", "policy/kl", "policy/reference_kl_k1"}
    elsewhere |= {f"policy/{name}_{k}" for name in ("loss", "weight") for k in (0, 1)}
    elsewhere |= {"policy/gradient_conflict_fraction", "time/weight_sync_s"}
    # Of questions that cannot be graded, of samplers that report responses.
    elsewhere |= {"task/ungradable", "time/grade_ahead_s"}
    elsewhere |= {"heldout/grader_failed_fraction"}
    # Of loops of one's own.
    elsewhere |= {"heldout/standard_error"}
    # Of rollouts ahead, of responses in parts, of weights that samplers get a copy of.
    elsewhere |= {"time/wait_s", "rollout/token_policy_lag"}
    elsewhere |= {"time/reshard_s", "sampler/reshard_bytes"}
    elsewhere |= {"run/stage", "groups/surplus_dropped", "policy/teacher_divergence"}
    assert set().union(*rows) - {"step"} == documented - elsewhere


def test_a_critic_and_its_optimiser_are_saved_too(tmp_path):
    learner = toy_learner(ppo())
    state = toy_state(learner)
    moved = jax.tree.map(lambda x: x + 1, state.models)
    state = state.replace(models=moved, step=3, draws=5)
    used, problems = hooks(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    fresh = toy_state(learner)
    found = resume_rl(used.checkpoints, FINGERPRINT, fresh, stream())
    assert set(moved) == {"critic"}
    assert same_trees(found.models, moved)
    assert (found.step, found.draws, found.surplus) == (3, 5, None)


def test_a_reward_model_and_the_state_of_a_controller_are_saved_too(tmp_path):
    prime, skywork = (
        RECIPES[name].build(SETTINGS.max_new_tokens)
        for name in ("prime", "skywork_or1")
    )
    components = (*prime.components, *skywork.components)
    method = dataclasses.replace(prime, components=components)
    learner = toy_learner(method)
    state = toy_state(learner)
    moved = jax.tree.map(lambda x: x + 1, state.models)
    controls = {"entropy_bonus": 0.25, "entropy_coef": 0.0}
    surplus = dataclasses.replace(
        fake_rollouts([[0, 1, 0, 1]]),
        extras={
            "greedy_rewards": np.full((1, 4), 0.5, np.float32),
            "reward_components": np.ones((1, 4, 2), np.float32),
        },
    )
    state = state.replace(models=moved, controls=controls, surplus=surplus)
    used, problems = hooks(tmp_path), stream()
    with used.log:
        save_rl(used, state, problems)
    found = resume_rl(used.checkpoints, FINGERPRINT, toy_state(learner), stream())
    assert set(moved) == {"reward_model"}
    assert same_trees(found.models, moved)
    assert found.controls == controls
    assert same_trees(found.surplus, surplus)
