"""Runs whose numbers are not finite end with one true error, and keep what is good."""

import contextlib
import dataclasses
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.rl.collect import NoSignalError, collect_groups, no_signal_message
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.rl.recipes.prime import PRIME
from jaxrl_reason.rl.rl_loop import train_rl, watched
from jaxrl_reason.rl.rollouts import concatenate
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.runs.run_warnings import RunWarnings, StoppedByWarning
from jaxrl_reason.runs.update_guard import NotFiniteError, UpdateGuard
from jaxrl_reason.runs.warning_signs import WarningSettings
from jaxrl_reason.serving import EngineError
from jaxrl_reason.tasks.grade_responses import GraderError
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    LuckyTask,
    fake_rollouts,
    hang,
    toy_dapo,
    toy_learner,
    toy_state,
)
from tests.rl.loop_helpers import (
    STEPS,
    Held,
    hooks,
    loop_learner,
    resume,
    run_rl,
    stream,
)


def with_odd_advantages(learner):
    """The learner, with advantages that are nan."""

    def advantages(experience):
        found = learner.advantages(experience)
        return dataclasses.replace(found, advantages=found.advantages * np.nan)

    return dataclasses.replace(learner, advantages=advantages)


def test_updates_that_are_all_skipped_end_the_run_with_its_state_saved(tmp_path):
    learner = with_odd_advantages(loop_learner())
    guard = UpdateGuard(3, tmp_path)
    with pytest.raises(NotFiniteError) as caught:
        run_rl(learner, tmp_path, guard=guard, save_every=100)
    said = str(caught.value)
    assert "3 updates of the policy in a row were skipped" in said
    assert "the loss (nan); batch/inputs/advantages (nan or inf in" in said
    # Two updates a step: the third is in the second, which is finished and saved.
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["policy/skipped_update_fraction"] for row in rows] == [1.0, 1.0]
    with np.load(tmp_path / "skipped_policy.npz") as saved:
        assert np.isnan(saved["inputs/advantages"]).any()
        assert saved["tokens"].dtype.kind == "i"
    mended = resume(loop_learner(), tmp_path, guard=UpdateGuard(3, tmp_path))
    assert mended.state.step == STEPS


@pytest.mark.parametrize("method", [ppo(), PRIME.build(SETTINGS.max_new_tokens)])
def test_other_models_are_watched_too(method, tmp_path):
    one = np.float32(1)
    skipped = {"skipped_update_fraction": (one, one), "loss": (one * np.nan, one)}
    learner = toy_learner(method)
    (component,) = learner.components
    component = dataclasses.replace(component, update=lambda s, b, n: (s, skipped))
    used = hooks(tmp_path, guard=UpdateGuard(2))
    learner = watched(dataclasses.replace(learner, components=(component,)), used)
    for _ in range(2):
        learner.components[0].update({}, {"returns": one * np.nan}, 1)
    said = rf"updates of the {component.name} in a row.*batch/returns"
    with used.log, pytest.raises(NotFiniteError, match=said):
        used.check({}, lambda: None)


def lost(policy):
    """The policy with one parameter that is nan."""
    params = {**policy.params}
    params["embedding"] = params["embedding"].at[0, 0].set(jnp.nan)
    return dataclasses.replace(policy, params=params)


def test_lost_parameters_are_said_before_anything_is_graded(tmp_path):
    learner = loop_learner()
    state = toy_state(learner)
    state = dataclasses.replace(state, policy=lost(state.policy))
    said = r"log-probs of the sampler must be finite, got nan .*parameters/embedding"
    with pytest.raises(NotFiniteError, match=said):
        run_rl(learner, tmp_path, state=state)


def test_lost_parameters_do_not_replace_the_last_good_checkpoint(tmp_path):
    learner, calls = loop_learner(), []

    def update(state, batch, num_active, **given):
        state, metrics = learner.update(state, batch, num_active, **given)
        calls.append(1)
        return (lost(state) if len(calls) == 4 else state), metrics

    broken = dataclasses.replace(learner, update=update)
    held = Held()  # nor does the thread that saves at a signal
    (tmp_path / "held").mkdir()
    with pytest.raises(NotFiniteError, match="log-probs of the sampler"):
        run_rl(broken, tmp_path / "held", interrupt=held, save_every=100)
    assert held.save() is None
    calls.clear()
    said = r"must be finite to be saved; not finite: policy/params/embedding"
    with pytest.raises(NotFiniteError, match=said):
        run_rl(broken, tmp_path, save_every=1)
    found = resume(learner, tmp_path)  # from step 1, the last good one
    assert found.state.step == STEPS
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.state.policy.params))


@pytest.mark.parametrize("size", [np.nan, np.inf, 1e30])
def test_rewards_that_are_all_unusable_are_named(tmp_path, size):
    def rewards(rollouts):
        return np.where(rollouts.correct, size, -size)

    learner = loop_learner()
    learner = dataclasses.replace(
        learner, method=dataclasses.replace(learner.method, rewards=rewards)
    )
    said = (
        r"rewards must be finite and at most 1e\+06 in size, got (nan|-?inf|-?1e\+30)"
    )
    with pytest.raises(GraderError, match=said):
        run_rl(learner, tmp_path)


def test_what_could_not_be_graded_is_neither_right_nor_wrong():
    groups = fake_rollouts([[1, 0, 0, 0]] + [[0, 0, 0, 0]] * 3)
    failed = np.array([[False] * 4] + [[True] * 4] * 3)
    groups = dataclasses.replace(groups, failed=failed)
    said = no_signal_message(groups, accepted=0, needed=4)
    assert "(0% all right, 0% all wrong, the grader failed on 75% of the resp" in said
    assert "the grader fails: look at its first error" in said
    assert "easier problems" not in said


def test_right_and_wrong_answers_with_equal_rewards_blame_the_reward():
    mixed = concatenate([fake_rollouts([[1, 0, 0, 1]], first_id=i) for i in range(3)])
    method = toy_dapo()
    sampling = dataclasses.replace(
        method.dynamic_sampling, keep_groups=lambda r: np.zeros(3, bool)
    )
    with pytest.raises(NoSignalError, match="get the same reward: change the reward"):
        collect_groups(
            lambda problems, draw: mixed,
            EndlessProblems(3),
            dataclasses.replace(method, dynamic_sampling=sampling),
            num_prompts=3,
            surplus=None,
            first_draw=0,
            max_rounds=1,
        )


class Hangs(LuckyTask):
    """A grader that hangs on one response of the third round, and is told to stop."""

    grade_seconds = 0.1
    graded = 0

    def grade(self, problem, response_text, truncated):
        Hangs.graded += 1
        if Hangs.graded == 3 * SETTINGS.sequences:
            signal.raise_signal(signal.SIGTERM)
            hang()
        return super().grade(problem, response_text, truncated)


def test_a_signal_while_a_grader_hangs_ends_the_run_saved(tmp_path, capfd):
    learner = dataclasses.replace(loop_learner(), task=Hangs())
    with GracefulInterrupt() as interrupt:
        used = dataclasses.replace(hooks(tmp_path), interrupt=interrupt)
        with used.log:
            state = train_rl(learner, toy_state(learner), stream(), used)
        assert interrupt.requested
    assert "SIGTERM: finishing this step" in capfd.readouterr().err
    assert 0 < state.step < STEPS
    assert used.checkpoints.steps()[-1] == state.step
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["step"] == state.step
    assert rows[-1]["reward/grader_failed_fraction"] > 0


class Fails(LuckyTask):
    """A grader that is gone from the third round on."""

    graded, told = 0, True

    def grade(self, problem, response_text, truncated):
        Fails.graded += 1
        if Fails.graded == 2 * SETTINGS.sequences + 1 and Fails.told:
            signal.raise_signal(signal.SIGTERM)
        if Fails.graded > 2 * SETTINGS.sequences:
            raise OSError("no server")
        return super().grade(problem, response_text, truncated)


@pytest.mark.parametrize("told", [True, False])
def test_a_grader_that_goes_with_the_machine_is_no_error(tmp_path, capsys, told):
    Fails.graded, Fails.told = 0, told
    learner = dataclasses.replace(loop_learner(), task=Fails())
    with GracefulInterrupt() as interrupt:
        used = hooks(tmp_path, interrupt=interrupt, save_every=100)
        with used.log, contextlib.nullcontext() if told else pytest.raises(GraderError):
            train_rl(learner, toy_state(learner), stream(), used)
    (step,) = used.checkpoints.steps()
    assert 0 < step < STEPS
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == step
    said = f"step {step + 1} was left out, as the run stops: the grader failed on 16"
    assert (said in capsys.readouterr().out) == told
    if told:
        assert resume(loop_learner(), tmp_path).state.step == STEPS


def test_an_engine_that_fails_loses_its_step_alone(tmp_path):
    learner, rounds = loop_learner(), []

    def sample(*given):
        rounds.append(1)
        if len(rounds) == 3:
            raise EngineError("POST failed 5 times")
        return learner.sample(*given)

    with pytest.raises(EngineError):
        run_rl(dataclasses.replace(learner, sample=sample), tmp_path, save_every=100)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [len(rows)]


def test_warnings_are_said_once_and_may_end_the_run(tmp_path):
    def run(path, **options):
        told = []
        settings = WarningSettings(entropy=100.0, rows=2)  # every policy's is below
        watch = RunWarnings(settings, tell=told.append, **options)
        path.mkdir()
        run_rl(loop_learner(), path, warnings=watch, save_every=100)
        return told, read_metrics(path / "metrics.jsonl")

    told, rows = run(tmp_path / "on")
    assert len(told) == 1
    assert ["warning/entropy_at_0" in row for row in rows] == [False] + [True] * 5
    with pytest.raises(StoppedByWarning, match="stopped and saved, as --stop-on entro"):
        run(tmp_path / "off", stop_on=("entropy_at_0",))
    assert resume(loop_learner(), tmp_path / "off").state.step == STEPS
    rows = read_metrics(tmp_path / "off" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
