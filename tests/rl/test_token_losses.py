"""The parts of a loss add up to it, and recording them changes nothing."""

import dataclasses

import numpy as np
import pytest

from jaxrl_reason.rl.iteration import collect, train_step
from jaxrl_reason.rl.recipes.gspo import GSPO
from jaxrl_reason.rl.token_losses import loss_parts, recording
from jaxrl_reason.runs.metrics_log import PhaseTimer
from tests.rl.helpers import same_trees, tiny_model, toy_dapo, toy_state
from tests.rl.loop_helpers import loop_learner, stream, timeless


@pytest.fixture(scope="module")
def recorded():
    """A step with a recorder and without: rows, states, what was recorded."""
    learner = loop_learner()
    watched, recorder = recording(learner, tiny_model())
    found = []
    for used in (learner, watched):
        state, timer = toy_state(used), PhaseTimer()
        collected = collect(used, state, stream(), timer)
        state, row = train_step(used, state, collected, timer)
        found.append((timeless([row]), state))
    return found, recorder


def test_recording_changes_no_bit(recorded):
    (plain, watched), _ = recorded
    assert plain[0] == watched[0]
    assert same_trees(plain[1].policy, watched[1].policy)


def test_parts_add_up_to_the_loss_of_the_row(recorded):
    (plain, _), recorder = recorded
    assert len(recorder.updates) == 2
    rows = np.concatenate([update.index for update in recorder.updates])
    assert sorted(rows) == list(range(16))
    totals = []
    for update in recorder.updates:
        assert update.tokens.shape == update.mask.shape == update.logprobs.shape
        assert not update.tokens[~update.mask].any()
        np.testing.assert_allclose(
            update.tokens.sum(axis=1), update.responses, atol=1e-6
        )
        totals.append(update.responses.sum())
    assert abs(np.mean(totals) - plain[0][0]["policy/loss"]) < 1e-6
    # The first update starts at the policy that drew; the second does not.
    old = np.asarray(recorder.experience.old_logprobs)
    first, second = recorder.updates
    mask = first.mask
    np.testing.assert_allclose(first.logprobs[mask], old[first.index][mask], atol=1e-5)
    assert np.abs(second.logprobs - old[second.index])[second.mask].max() > 1e-4


def given(**more):
    rng = np.random.default_rng(0)
    mask = np.arange(5) < np.array([5, 3, 1, 4])[:, None]
    logprobs = -rng.random((4, 5)).astype(np.float32)
    arrays = {
        "old_logprobs": logprobs + rng.normal(0, 0.1, (4, 5)).astype(np.float32),
        "advantages": np.repeat(rng.normal(size=(4, 1)), 5, 1).astype(np.float32),
        "group_ids": np.array([0, 0, 1, 1], np.int32),
    }
    return logprobs, mask, arrays | more


def test_a_ratio_of_whole_responses_has_no_parts_of_tokens():
    logprobs, mask, arrays = given()
    method = GSPO.build(5)
    arrays["entropy"] = np.ones_like(logprobs)
    responses, tokens = loss_parts(method, logprobs, mask, arrays, {}, num_groups=2)
    assert tokens is None
    assert np.isfinite(responses).all()


def test_a_loss_that_needs_more_is_not_taken_apart():
    logprobs, mask, arrays = given()
    method = dataclasses.replace(toy_dapo(), loss_inputs=("ref_logprobs",))
    parts = loss_parts(method, logprobs, mask, arrays, {}, num_groups=2)
    assert parts == (None, None)
