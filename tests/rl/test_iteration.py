"""The RL iteration: real runs of four methods, and what every step of them has."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import dapo_loss
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.runs.metrics_log import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    Recorder,
    copied,
    run_steps,
    same_trees,
    toy_dapo,
    toy_learner,
    toy_state,
)

MOST_STEPS = 80  # PPO rests at one half for a while
LEARNT = 0.65
METHODS = {
    "dapo": toy_dapo(),
    "grpo": grpo(kl_coef=0.001),
    "dr_grpo": dr_grpo(length=SETTINGS.max_new_tokens),
    "ppo": ppo(),
}
# Every step has these; the loop around adds seconds and tokens.
ROW = {
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
NAMES = {name for line in ROW for name in line.split()}


@dataclasses.dataclass
class Run:
    """A method's run on the toy task, until it has learnt it rather well.

    Beyond that, groups have no signal and ratios stay at 1.
    """

    name: str
    learner: object
    start: object
    end: object
    rows: list
    collected: list
    updates: list  # metrics of every single update
    batches: list  # of every update
    critic_batches: list
    compiles: list


@pytest.fixture(scope="module", params=list(METHODS))
def run(request):
    learner = toy_learner(METHODS[request.param])
    learner = dataclasses.replace(learner, update=Recorder(learner.update))
    critics = tuple(
        dataclasses.replace(critic, update=Recorder(critic.update))
        for critic in learner.components
    )
    learner = dataclasses.replace(learner, components=critics)
    state, stream = toy_state(learner), EndlessProblems(SETTINGS.prompts_per_step)
    start, rows, collected, compiles = copied(state), [], [], []
    with CompileCounter() as counter:
        while len(rows) < MOST_STEPS and np.mean(accuracies(rows)[-4:]) < LEARNT:
            mark = counter.count
            state, (row,), (found,) = run_steps(learner, state, stream, 1)
            rows.append(row)
            collected.append(found)
            compiles.append(counter.names_since(mark))
    calls = learner.update.calls
    return Run(
        name=request.param,
        learner=learner,
        start=start,
        end=state,
        rows=rows,
        collected=collected,
        updates=[finish_metrics(result[1], "policy") for _, result in calls],
        batches=[args[1] for args, _ in calls],
        critic_batches=[args[1] for one in critics for args, _ in one.update.calls],
        compiles=compiles,
    )


def accuracies(rows):
    return [0.0, 0.0, 0.0, *(row["reward/accuracy"] for row in rows)]


def test_every_step_has_every_metric(run):
    for row in run.rows:
        assert row.keys() >= NAMES
        assert all(math.isfinite(value) for value in row.values()), row
        assert 0 <= row["reward/accuracy"] <= 1
        assert ("rollout/length_correct" in row) == (row["reward/accuracy"] > 0)
        assert ("rollout/length_wrong" in row) == (row["reward/accuracy"] < 1)
        assert row["policy/skipped_update_fraction"] == 0


def test_parameters_move(run):
    start = jax.tree.leaves(run.start.policy.params)
    end = jax.tree.leaves(run.end.policy.params)
    assert all((a != b).any() for a, b in zip(start, end, strict=True))
    updates = len(run.rows) * SETTINGS.updates_per_rollout
    assert int(run.end.policy.step) == updates
    assert len(run.updates) == updates


def test_the_ratio_is_1_in_the_first_update_and_leaves_it_after(run):
    # Trap 15.
    first, second = run.updates[0::2], run.updates[1::2]
    for row in first:
        assert abs(row["policy/ratio"] - 1) < 1e-5
        assert row["policy/clip_fraction_low"] == row["policy/clip_fraction_high"] == 0
        assert abs(row["policy/approx_kl_k3"]) < 1e-9
    # Without dynamic sampling a mini-batch may have no signal and move nothing.
    moved = [
        b for a, b in zip(first, second, strict=True) if a["policy/grad_norm"] > 1e-3
    ]
    assert len(moved) > 3
    # By k3, which no token lowers: the mean ratio may pass through 1. In the first
    # updates it is below 1e-9; 44 runs of other seeds and rounding had 1e-4 or more.
    assert all(row["policy/approx_kl_k3"] > 1e-6 for row in moved)
    # The learning rate is large: clipping acts, on both sides.
    assert max(row["policy/clip_fraction_low"] for row in second) > 0
    assert max(row["policy/clip_fraction_high"] for row in second) > 0


def test_sampler_and_trainer_agree_on_every_step(run):
    # Trap 30: a cache against packed rows, single precision.
    for row in run.rows:
        assert row["sampler/logprob_diff_max"] < 1e-4
        assert row["sampler/logprob_diff_mean"] < 1e-5
        assert row["sampler/ess_fraction"] > 0.9999


def test_after_the_second_step_nothing_compiles(run):
    # Trap 44. Rounds, active micro-batches and surplus differ from step to step.
    assert run.compiles[0]
    assert len(run.rows) > 5
    assert [name for names in run.compiles[2:] for name in names] == []


def test_the_policy_learns(run):
    accuracy = [row["reward/accuracy"] for row in run.rows]
    assert np.mean(accuracy[:3]) < 0.35
    assert np.mean(accuracy[-4:]) >= LEARNT
    assert run.rows[-1]["reward/mean"] > run.rows[0]["reward/mean"]


def test_batches_hold_what_the_method_asks_for(run):
    optional = ("ref_logprobs", "returns", "old_values", "advantages")

    def present(batch):
        return {name for name in optional if name in batch.inputs}

    more = {"ref_logprobs"} if run.name == "grpo" else set()
    assert present(run.batches[0]) == {"advantages"} | more
    assert bool(run.critic_batches) == (run.name == "ppo")
    for batch in run.critic_batches[:1]:
        assert present(batch) == {"returns", "old_values"}


def test_a_reference_is_kept_only_where_it_is_used(run):
    # Trap 23.
    if run.name == "grpo":
        assert same_trees(run.end.reference, run.start.policy.params)
        assert any(row["policy/kl"] > 0 for row in run.rows)
    else:
        assert run.end.reference is None


def test_a_critic_learns_where_there_is_one(run):
    if run.name != "ppo":
        assert not run.end.models
        return
    start = jax.tree.leaves(run.start.models["critic"].params)
    end = jax.tree.leaves(run.end.models["critic"].params)
    assert all((a != b).any() for a, b in zip(start, end, strict=True))
    assert (
        not run.start.models["critic"].params["value_head"].any()
    )  # first values are 0
    names = {"critic/loss", "critic/grad_norm", "critic/skipped_update_fraction"}
    assert names <= run.rows[0].keys()
    # Its values come nearer to what they stand for.
    errors = [
        abs(float(np.mean((batch["old_values"] - batch["returns"])[batch.mask])))
        for batch in run.critic_batches[:12]
    ]
    assert np.mean(errors[6:]) < 0.7 * np.mean(errors[:2])


def test_only_dapo_refills_and_keeps_a_surplus(run):
    rounds = [found.rounds for found in run.collected]
    if run.name != "dapo":
        assert set(rounds) == {1}
        assert run.end.surplus is None
        return
    assert max(rounds) > 1
    assert run.end.draws == sum(rounds)
    for before, after in zip(run.collected, run.collected[1:], strict=False):
        correct = before.rollouts.correct
        assert (correct.any(1) & ~correct.all(1)).all()
        if before.surplus is not None:
            kept = before.surplus.problem_ids
            assert after.rollouts.problem_ids[: len(kept)].tolist() == kept.tolist()


def test_old_logprobs_of_the_surplus_are_of_the_policy_that_is_updated(run):
    # So the first ratio is 1 also on groups that an older policy sampled.
    if run.name != "dapo":
        return
    found = next(
        i for i, one in enumerate(run.collected) if (one.rollouts.policy_step < i).any()
    )
    assert abs(run.updates[2 * found]["policy/ratio"] - 1) < 1e-5


def test_reward_metrics_are_of_all_fresh_samples(run):
    for row, found in zip(run.rows, run.collected, strict=True):
        fresh = found.fresh
        assert row["groups/sampled"] == len(fresh.problem_ids)
        assert row["reward/mean"] == pytest.approx(float(fresh.rewards.mean()))
        assert row["reward/accuracy"] == pytest.approx(float(fresh.correct.mean()))


def test_old_logprobs_taken_anew_in_every_update_would_never_clip():
    # Trap 15, kept as a mutant.
    def loss(logprobs, old, *args, **kwargs):
        return dapo_loss(logprobs, jax.lax.stop_gradient(logprobs), *args, **kwargs)

    learner = toy_learner(dataclasses.replace(toy_dapo(), loss=loss))
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, rows, _ = run_steps(learner, toy_state(learner), stream, 3)
    assert all(abs(row["policy/ratio"] - 1) < 1e-6 for row in rows)
    assert all(
        row["policy/clip_fraction_low"] + row["policy/clip_fraction_high"] == 0
        for row in rows
    )
