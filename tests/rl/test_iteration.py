"""Whole RL iterations of every method: a tiny model, a toy task."""

import dataclasses
import importlib.util
import json
import math
from functools import partial

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import dapo_loss
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.rl_learner import RLSettings, build_rl_learner
from jaxrl_reason.rl.rollout_correction import RolloutCorrection
from jaxrl_reason.runs.metrics import finish_metrics
from jaxrl_reason.runs.monitor import CompileCounter
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    EndlessProblems,
    LuckyTask,
    copied,
    first_policy,
    one_device,
    run_steps,
    same_trees,
    shared_pieces,
    tiny_model,
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


class Recorder:
    """Calls a function and keeps what it was called with and what came out."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *args):
        result = self.function(*args)
        self.calls.append((args, result))
        return result


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
    # Trap 44. Rounds, live micro-batches and surplus differ from step to step.
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
        assert row["groups/sampled"] == fresh.num_prompts
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


def test_without_a_kl_term_no_reference_pass_runs():
    # Trap 23: the scorer runs once a mini-batch for the old log-probs, and once more
    # only for a reference. No update is needed to see it.
    counts = {}
    for coef in (0.0, 0.001):
        learner = toy_learner(grpo(kl_coef=coef))
        score = Recorder(learner.score)
        learner = dataclasses.replace(
            learner, score=score, update=lambda policy, batch, live: (policy, {})
        )
        state = toy_state(learner)
        assert (state.reference is None) == (coef == 0)
        run_steps(learner, state, EndlessProblems(SETTINGS.prompts_per_step), 1)
        counts[coef] = len(score.calls)
    assert counts == {0.0: 2, 0.001: 4}


def no_update(policy, batch, live):
    return policy, {}


def test_old_logprobs_may_be_the_sampler_s():
    # Then no forward pass is made but for what an earlier policy sampled, and nothing
    # says that sampler and trainer agree. Both take each step from one state, and what
    # they hand to the updates and the first update are compared: Adam turns the
    # rounding of a gradient near zero into a whole step, so that whatever comes after
    # an update differs from processor to processor.
    learners = {
        whose: toy_learner(
            toy_dapo(), dataclasses.replace(SETTINGS, old_logprobs=whose)
        )
        for whose in ("trainer", "sampler")
    }
    update = learners["trainer"].update  # compiled once for both
    state, stream, stale = toy_state(learners["trainer"]), EndlessProblems(4), 0
    calls = dict.fromkeys(learners, 0)
    for step in range(3):
        start, place = state, stream.get_state()
        batches, first, rows = {}, {}, {}
        for whose, learner in learners.items():
            policy = jax.tree.map(lambda x: x.copy(), start.policy)
            stream.set_state(place)
            learner = dataclasses.replace(
                learner, update=Recorder(update), score=Recorder(learner.score)
            )
            after, (rows[whose],), (found,) = run_steps(
                learner, dataclasses.replace(start, policy=policy), stream, 1
            )
            state = after if whose == "trainer" else state
            batches[whose] = [args[1] for args, _ in learner.update.calls]
            first[whose] = finish_metrics(learner.update.calls[0][1][1])
            calls[whose] += len(learner.score.calls)
        stale += int((found.rollouts.policy_step < step).sum())
        for one, other in zip(batches["trainer"], batches["sampler"], strict=True):
            old, mask = np.asarray(one["old_logprobs"]), np.asarray(one.mask)
            found_old = np.asarray(other["old_logprobs"])
            np.testing.assert_allclose(found_old[mask], old[mask], rtol=0, atol=1e-5)
            assert same_trees(one, other.with_inputs(old_logprobs=old))
        assert first["sampler"] == pytest.approx(first["trainer"], rel=1e-4, abs=1e-5)
        mismatch = {name for name in rows["trainer"] if name.startswith("sampler/")}
        assert mismatch
        assert set(rows["trainer"]) - set(rows["sampler"]) == mismatch
    assert stale
    assert calls["trainer"] == 3 * 2
    assert 0 < calls["sampler"] < calls["trainer"]


def test_a_method_that_weighs_the_mismatch_has_the_trainer_s_old_logprobs():
    settings = dataclasses.replace(SETTINGS, old_logprobs="sampler")
    correction = RolloutCorrection(lambda old, sampler, mask: mask)
    method = dataclasses.replace(toy_dapo(), components=(correction,))
    said = "must be 'trainer' for a rollout correction, which weighs"
    with pytest.raises(ValueError, match=said):
        toy_learner(method, settings)


def test_the_temperature_travels_to_the_trainer():
    # Trap 27, with the trainer that forgets it as a mutant.
    settings = dataclasses.replace(SETTINGS, temperature=0.6)
    learner = dataclasses.replace(toy_learner(toy_dapo(), settings), update=no_update)
    stream = partial(EndlessProblems, SETTINGS.prompts_per_step)
    _, (row,), _ = run_steps(learner, toy_state(learner), stream(), 1)
    assert row["sampler/logprob_diff_max"] < 1e-4
    mutant = dataclasses.replace(learner, score=shared_pieces(1.0).score)
    _, (row,), _ = run_steps(mutant, toy_state(learner), stream(), 1)
    assert row["sampler/logprob_diff_max"] > 0.1


def test_overlong_filtering_masks_the_loss_and_not_the_statistics():
    seen = {}
    for on in (False, True):
        learner = toy_learner(toy_dapo(overlong_filtering=on))
        update = Recorder(no_update)
        advantages = Recorder(learner.advantages)
        learner = dataclasses.replace(learner, update=update, advantages=advantages)
        stream = EndlessProblems(SETTINGS.prompts_per_step)
        _, _, (found,) = run_steps(learner, toy_state(learner), stream, 1)
        tokens = sum(int(args[1].mask.sum()) for args, _ in update.calls)
        seen[on] = (tokens, advantages.calls[0], found.rollouts)
    (all_tokens, plain, rollouts), (tokens, filtered, _) = seen[False], seen[True]
    assert rollouts.truncated.any()
    assert all_tokens == rollouts.lengths.sum()
    assert tokens == rollouts.lengths[~rollouts.truncated].sum()
    # Truncated responses stay in their groups' mean and deviation.
    assert same_trees(plain[1], filtered[1])
    assert filtered[0][0].mask.sum() == all_tokens


def test_a_step_is_the_same_twice():
    learner = dataclasses.replace(toy_learner(toy_dapo()), update=no_update)
    runs = [
        run_steps(learner, toy_state(learner), EndlessProblems(4), 2)[1:]
        for _ in range(2)
    ]
    assert runs[0][0] == runs[1][0]
    assert same_trees(
        [found.rollouts for found in runs[0][1]],
        [found.rollouts for found in runs[1][1]],
    )


OWN_LOSS = '''
"""A loss of somebody's own: REINFORCE on the sampler's weights, no clip."""
import jax.numpy as jnp

from jaxrl_reason.losses import masked_total, policy_gradient, token_mean


def my_loss(logprobs, old_logprobs, advantages, mask, counts, *, entropy,
            sampler_logprobs, group_ids, num_groups):
    assert group_ids.shape == (logprobs.shape[0],) and num_groups == 2
    per_token = policy_gradient(logprobs, advantages, mask)
    return token_mean(per_token, mask, counts), {
        "entropy": masked_total(entropy, mask),
        "off_policy": masked_total(jnp.abs(old_logprobs - sampler_logprobs), mask),
    }


def my_rewards(rollouts):
    return rollouts.correct * 2.0
'''


def test_a_loss_in_a_file_of_ones_own(tmp_path):
    path = tmp_path / "my_method.py"
    path.write_text(OWN_LOSS)
    spec = importlib.util.spec_from_file_location("my_method", path)
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    method = dataclasses.replace(
        dr_grpo(length=6),
        name="mine",
        loss=mine.my_loss,
        rewards=mine.my_rewards,
        loss_inputs=("entropy", "sampler_logprobs", "group_ids"),
    )
    learner = toy_learner(method)
    stream = EndlessProblems(SETTINGS.prompts_per_step)
    _, rows, _ = run_steps(learner, toy_state(learner), stream, 8)
    assert rows[0]["policy/off_policy"] < 1e-5
    assert rows[0]["reward/mean"] == 2 * rows[0]["reward/accuracy"]
    # Four steps against two: one step is 16 samples. This policy gains 0.25, eight of
    # other seeds 0.03 to 0.44.
    accuracy = [row["reward/accuracy"] for row in rows]
    assert np.mean(accuracy[-4:]) > np.mean(accuracy[:2])
    assert json.loads(json.dumps(rows[-1])) == rows[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0 in training, got 0.0"),
        ({"temperature": math.nan}, "temperature must be > 0 in training, got nan"),
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
