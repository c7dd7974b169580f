"""Rollouts drawn ahead: the same run whoever is faster, and after every resume."""

import dataclasses
import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl_reason.rl import rollouts_ahead
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.components import ComponentLearner
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.tasks.reward_functions import InProcessReward, Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from tests.rl.helpers import SETTINGS, LuckyTask
from tests.rl.loop_helpers import (
    STEPS,
    SampleLog,
    assert_same_run,
    loop_learner,
    resume,
    run_rl,
)


def at_level(level):
    """The learner of the other loop tests, drawing ahead."""
    learner = loop_learner()
    settings = dataclasses.replace(learner.settings, async_level=level)
    return dataclasses.replace(learner, settings=settings)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """One step off, with a thread that draws."""
    return run_rl(at_level(1), tmp_path_factory.mktemp("straight"))


def test_groups_are_drawn_by_the_policy_of_the_step_before(straight):
    lag = [row["rollout/policy_lag"] for row in straight.rows]
    assert lag[0] == 0.0
    # Surplus groups are older still.
    assert all(1.0 <= x < 2.0 for x in lag[1:])
    assert any(row["groups/surplus"] for row in straight.rows[:-1])
    assert all("sampler/kl_k1" in row for row in straight.rows)
    assert straight.state.step == STEPS
    assert straight.state.ahead == ()


class Params(SampleLog):
    """Keeps a number that tells one policy from another."""

    def __call__(self, params, *args):
        total = sum(float(np.abs(np.asarray(x)).sum()) for x in jax.tree.leaves(params))
        self.tokens.append(total)
        return self.sample(params, *args)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_step_i_is_drawn_by_the_policy_of_step_i_minus_k(level, tmp_path):
    learner = at_level(level)
    policies, before = Params(learner.sample), []
    update = learner.update

    def following(state, *args, **given):
        total = sum(
            float(np.abs(np.asarray(x)).sum()) for x in jax.tree.leaves(state.params)
        )
        before.append(total)
        return update(state, *args, **given)

    method = dataclasses.replace(learner.method, dynamic_sampling=None)
    run_rl(
        dataclasses.replace(learner, sample=policies, update=following, method=method),
        tmp_path,
    )
    of_step = before[:: SETTINGS.updates_per_rollout]
    assert len(set(of_step)) == STEPS
    wanted = [of_step[max(0, step - level)] for step in range(STEPS)]
    assert policies.tokens == wanted


def test_taking_turns_gives_the_same_run(straight, tmp_path, monkeypatch):
    monkeypatch.setattr(rollouts_ahead, "overlaps", lambda learner: False)
    assert_same_run(run_rl(at_level(1), tmp_path), straight)


def test_another_level_is_another_run(straight, tmp_path):
    with pytest.raises(AssertionError):
        assert_same_run(run_rl(at_level(0), tmp_path), straight)


def test_a_policy_that_does_not_change_draws_the_same_ahead(tmp_path):
    still = dataclasses.replace(loop_learner(), update=lambda p, *a, **k: (p, {}))
    ran = [
        run_rl(
            dataclasses.replace(still, settings=at_level(level).settings),
            tmp_path / str(level),
        )
        for level in (0, 1, 3)
    ]
    for other in ran[1:]:
        assert len(other.tokens) == len(ran[0].tokens)
        assert all(map(np.array_equal, other.tokens, ran[0].tokens))


@pytest.mark.parametrize("level", [1, 2])
def test_an_interrupted_run_resumes_as_if_nothing_had_been(level, straight, tmp_path):
    learner = at_level(level)
    whole = straight if level == 1 else run_rl(learner, tmp_path / "whole")
    path = tmp_path / "parts"
    tokens = []
    for stop in (1, 2, 3, 4):
        run = run_rl if stop == 1 else resume
        ran = run(learner, path, stop_after=1, save_every=100)  # one step each
        tokens += ran.tokens
        assert ran.state.step == stop
        assert len(ran.state.ahead) == level
    last = resume(learner, path)
    last.tokens = tokens + last.tokens
    assert_same_run(last, whole)


@pytest.mark.parametrize("forget", ["ahead", "draws"])
def test_a_resume_that_forgets_what_is_ahead_would_not(forget, straight, tmp_path):
    change = {"ahead": {"ahead": ()}, "draws": {"draws": 0}}[forget]
    first = run_rl(at_level(1), tmp_path, stop_after=3, save_every=100)
    second = resume(
        at_level(1), tmp_path, change=lambda state, p: (state.replace(**change), p)
    )
    second.tokens = first.tokens + second.tokens
    with pytest.raises(AssertionError):
        assert_same_run(second, straight)


def test_drawing_goes_on_while_the_policy_is_updated(tmp_path):
    learner = at_level(1)
    updating, drew = threading.Event(), threading.Event()

    def sample(*args):
        done = learner.sample(*args)
        # Everything after the first two batches waits for an update under way.
        if threading.current_thread() is not threading.main_thread():
            calls.append(1)
            if len(calls) == 3:
                assert updating.wait(60)
                drew.set()
        return done

    def update(*args, **given):
        updates.append(1)
        # The third batch is asked for when the first step is done.
        if len(updates) > learner.plan.num_minibatches:
            updating.set()
            assert drew.wait(60)
        return learner.update(*args, **given)

    calls, updates = [], []
    method = dataclasses.replace(learner.method, dynamic_sampling=None)
    overlapping = dataclasses.replace(
        learner, sample=sample, update=update, method=method
    )
    run_rl(overlapping, tmp_path)
    assert updating.is_set()
    assert drew.is_set()


class SometimesWrong(LuckyTask):
    """After a number of gradings, every answer is wrong, or the grader raises."""

    def __init__(self, after, error=None):
        super().__init__()
        object.__setattr__(self, "after", after)
        object.__setattr__(self, "error", error)
        object.__setattr__(self, "calls", [])

    def grade(self, problem, response_text, truncated):
        self.calls.append(1)
        graded = super().grade(problem, response_text, truncated)
        if len(self.calls) <= self.after:
            return graded
        if self.error is not None:
            raise self.error
        return dataclasses.replace(graded, correct=False)


def failing(after, error=None):
    learner = at_level(1)
    settings = dataclasses.replace(learner.settings, max_rounds=2)
    return dataclasses.replace(
        learner, task=SometimesWrong(after, error), settings=settings
    )


def test_no_signal_ahead_ends_the_run_when_its_step_comes(straight, tmp_path):
    with pytest.raises(NoSignalError, match="must fill 4 groups"):
        run_rl(failing(100), tmp_path, save_every=100)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert 0 < len(rows) < STEPS  # what was drawn before is trained on and written
    saved = resume(at_level(1), tmp_path)  # the grader is mended
    assert saved.state.step == STEPS


def test_a_broken_grader_ahead_ends_the_run(tmp_path):
    with pytest.raises(GraderError, match="OSError"):
        run_rl(failing(0, OSError("gone")), tmp_path, save_every=100)


def test_several_devices_overlap_only_with_what_draws_elsewhere():
    class Engine(SampleLog):
        def update_weights(self, params, version):
            pass

    class Draws(ComponentLearner):
        def extend_rollouts(self, learner, sample, problems, rollouts):
            return rollouts

    own = at_level(1)
    engine = dataclasses.replace(own, sample=Engine(own.sample))
    both = dataclasses.replace(engine, components=(Draws(),))
    judge = InProcessReward(lambda *asked: 1.0, needs_devices=True)
    judged = dataclasses.replace(
        engine, task=RewardTask(LuckyTask(), [Weighted(judge)])
    )
    kinds = (own, engine, both, judged)
    assert all(map(rollouts_ahead.overlaps, kinds))
    several = SimpleNamespace(mesh=SimpleNamespace(size=8))
    found = [
        rollouts_ahead.overlaps(dataclasses.replace(x, batch_sharding=several))
        for x in kinds
    ]
    assert found == [False, True, False, False]


def test_nothing_is_drawn_ahead_of_the_last_step(straight):
    rounds = sum(row["groups/rounds"] for row in straight.rows)
    assert len(straight.tokens) == rounds
    assert straight.state.draws == rounds


def test_a_level_below_zero_is_refused():
    with pytest.raises(ValueError, match="async_level must be >= 0, got -1"):
        dataclasses.replace(SETTINGS, async_level=-1)
