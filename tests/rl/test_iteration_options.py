"""An iteration under other settings and losses: what changes, and nothing else."""

import dataclasses
import importlib.util
import json
from functools import partial

import jax
import numpy as np
import pytest

from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rollout_correction import RolloutCorrection
from jaxrl_reason.runs.metrics_log import finish_metrics
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    Recorder,
    no_update,
    run_steps,
    same_trees,
    shared_pieces,
    toy_dapo,
    toy_learner,
    toy_state,
)


def test_without_a_kl_term_no_reference_pass_runs():
    # Trap 23: the scorer runs once a mini-batch for the old log-probs, and once more
    # only for a reference. No update is needed to see it.
    counts = {}
    for coef in (0.0, 0.001):
        learner = toy_learner(grpo(kl_coef=coef))
        score = Recorder(learner.score)
        learner = dataclasses.replace(
            learner, score=score, update=lambda policy, batch, num_active: (policy, {})
        )
        state = toy_state(learner)
        assert (state.reference is None) == (coef == 0)
        run_steps(learner, state, EndlessProblems(SETTINGS.prompts_per_step), 1)
        counts[coef] = len(score.calls)
    assert counts == {0.0: 2, 0.001: 4}


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
