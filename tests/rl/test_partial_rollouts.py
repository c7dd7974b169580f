"""Partial rollouts: the same responses, in parts, under the policies of then."""

import dataclasses

import numpy as np
import pytest

from jaxrl_reason.rl.iteration import collect
from jaxrl_reason.rl.recipes.remax import REMAX
from jaxrl_reason.rl.rl_learner import build_rl_learner
from jaxrl_reason.rl.rollouts import concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    Toy,
    one_device,
    tiny_model,
    toy_dapo,
    toy_state,
)
from tests.rl.loop_helpers import STEPS, assert_same_run, resume, run_rl, stream

PART = 2  # of 6 tokens


def parts_learner(part=PART, level=0, method=None, **more):
    settings = dataclasses.replace(
        SETTINGS, steps=STEPS, partial_tokens=part, async_level=level
    )
    return build_rl_learner(
        tiny_model(),
        LuckyTask(),
        method or toy_dapo(),
        settings,
        OPTIMIZER,
        one_device(),
        **more,
    )


@pytest.fixture(scope="module")
def learner():
    return parts_learner()


@pytest.fixture(scope="module")
def straight(learner, tmp_path_factory):
    return run_rl(learner, tmp_path_factory.mktemp("straight"))


def groups_of(learner, steps):
    """All groups that a policy draws in some steps, by problem."""
    state, problems, found = toy_state(learner), stream(), []
    for _ in range(steps):
        collected = collect(learner, state, problems, PhaseTimer())
        found.append(collected.fresh)
        state = state.replace(
            surplus=None,
            unfinished=collected.unfinished,
            draws=state.draws + collected.rounds,
        )
    return concatenate(found), state


def test_parts_make_the_tokens_of_whole_responses(learner):
    method = dataclasses.replace(toy_dapo(), dynamic_sampling=None)
    parts, state = groups_of(dataclasses.replace(learner, method=method), 6)
    whole, _ = groups_of(parts_learner(0, method=method), 12)
    assert state.unfinished is not None
    assert (parts.lengths > PART).any()
    place = {int(i): at for at, i in enumerate(whole.problem_ids)}
    at = [place[int(i)] for i in parts.problem_ids]
    for name in ("tokens", "lengths", "truncated", "correct", "format_ok", "failed"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name)[at])
    np.testing.assert_allclose(
        parts.sampler_logprobs, whole.sampler_logprobs[at], atol=1e-5
    )
    assert parts.truncated.any()
    # Groups end in another order than they began in, and none is lost or doubled.
    left = state.unfinished.problem_ids.tolist()
    assert len({*parts.problem_ids.tolist(), *left}) == len(at) + len(left)


def test_keys_of_another_column_would_draw_other_tokens(learner):
    # The wrong form: a continuation that begins at column 0 again.
    def from_the_start(params, tokens, lengths, keys, first):
        return learner.partial.go_on(params, tokens, lengths, keys, 0 * first)

    wrong = dataclasses.replace(learner.partial, go_on=from_the_start)
    method = dataclasses.replace(toy_dapo(), dynamic_sampling=None)
    of_parts, of_whole = (
        groups_of(dataclasses.replace(learner, method=method, partial=partial), 2)[0]
        for partial in (wrong, learner.partial)
    )
    assert not np.array_equal(of_parts.tokens, of_whole.tokens)


def test_every_token_names_the_policy_that_drew_it(learner, tmp_path):
    seen = []
    advantages = learner.advantages

    def watched(experience):
        seen.append((experience["token_steps"], experience.mask))
        return advantages(experience)

    ran = run_rl(dataclasses.replace(learner, advantages=watched), tmp_path)
    mixed = 0
    for step, ((steps, mask), row) in enumerate(zip(seen, ran.rows, strict=True)):
        assert (steps[mask] <= step).all()
        inside = np.where(mask, steps, -1)
        for column in range(1, mask.shape[1]):
            both = mask[:, column]
            assert (inside[both, column] >= inside[both, column - 1]).all()
            if column % PART:  # of one round
                assert (inside[both, column] == inside[both, column - 1]).all()
        mixed += (np.ptp(np.where(mask, steps, steps[:, :1]), axis=1) > 0).sum()
        lag = (step - steps)[mask].mean()
        assert row["rollout/token_policy_lag"] == pytest.approx(lag)
    assert mixed > 0


def test_an_interrupted_run_resumes_as_if_nothing_had_been(learner, straight, tmp_path):
    tokens, waited = [], 0
    for step in range(1, STEPS):
        run = run_rl if step == 1 else resume
        ran = run(learner, tmp_path, stop_after=1, save_every=100)
        tokens += ran.tokens
        waited += ran.state.unfinished is not None
    assert waited
    last = resume(learner, tmp_path)
    last.tokens = tokens + last.tokens
    assert_same_run(last, straight)


def test_a_resume_that_forgets_what_goes_on_would_not(learner, straight, tmp_path):
    first = run_rl(learner, tmp_path, stop_after=2, save_every=100)
    assert first.state.unfinished is not None
    second = resume(
        learner,
        tmp_path,
        change=lambda state, problems: (state.replace(unfinished=None), problems),
    )
    second.tokens = first.tokens + second.tokens
    with pytest.raises(AssertionError):
        assert_same_run(second, straight)


def test_parts_ahead_of_the_training_resume_too(tmp_path):
    learner = parts_learner(level=1)
    whole = run_rl(learner, tmp_path / "whole")
    first = run_rl(learner, tmp_path / "parts", stop_after=2, save_every=100)
    assert first.state.ahead[0].collected.unfinished is not None
    second = resume(learner, tmp_path / "parts")
    second.tokens = first.tokens + second.tokens
    assert_same_run(second, whole)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"must divide max_new_tokens \(6\), got 4"):
        parts_learner(4)
    with pytest.raises(ValueError, match="partial_tokens must be >= 0, got -1"):
        dataclasses.replace(SETTINGS, partial_tokens=-1)
    with pytest.raises(ValueError, match="adds to the rollouts, got 2 with greedy"):
        parts_learner(method=REMAX.build(SETTINGS.max_new_tokens))


def test_a_stream_that_cannot_find_a_problem_is_refused(learner):
    class Endless:
        def __next__(self):
            return [Toy(i) for i in range(4)]

    with pytest.raises(ValueError, match=r"find\(problem_id\), got Endless"):
        collect(learner, toy_state(learner), Endless(), PhaseTimer())
