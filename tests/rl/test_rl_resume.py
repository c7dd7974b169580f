"""RL runs that are stopped or killed: they go on as if nothing had been."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from jaxrl_reason.learner.state import init_state
from jaxrl_reason.rl.heldout import build_heldout_evaluation
from jaxrl_reason.rl.rl_loop import resume_rl
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics
from tests.rl.helpers import (
    OPTIMIZER,
    SETTINGS,
    LuckyTask,
    Toy,
    one_device,
    same_trees,
    tiny_model,
    toy_state,
)
from tests.rl.kill_helpers import kill_at_random, killed, run
from tests.rl.loop_helpers import (
    FINGERPRINT,
    STEPS,
    GivenUp,
    Held,
    assert_same_run,
    loop_learner,
    resume,
    run_rl,
    stream,
)


@pytest.fixture(scope="module")
def learner():
    return loop_learner()


@pytest.fixture(scope="module")
def straight(learner, tmp_path_factory):
    """The run that nobody stops; checkpoints after every step."""
    return run_rl(learner, tmp_path_factory.mktemp("straight"), save_every=1)


def test_the_straight_run_is_worth_resuming(straight):
    assert [row["step"] for row in straight.rows] == list(range(1, STEPS + 1))
    assert any(row["groups/surplus"] for row in straight.rows[:-1])
    assert any(row["groups/rounds"] > 1 for row in straight.rows)
    assert straight.checkpoints.steps() == list(range(1, STEPS + 1))
    assert straight.state.step == STEPS


def test_an_evaluation_does_not_disturb_the_training(learner, straight, tmp_path):
    # Trap 43.
    evaluation = build_heldout_evaluation(
        tiny_model(),
        LuckyTask(),
        [Toy(1000 + i) for i in range(6)],
        num_samples=SETTINGS.group_size,
        temperature=1.0,
        max_new_tokens=SETTINGS.max_new_tokens,
        prompt_width=SETTINGS.prompt_width,
        batch_size=16,
        seed=0,
        batch_sharding=one_device(),
    )
    evaluation = dataclasses.replace(evaluation, sample=learner.sample)
    shown = []
    ran = run_rl(
        learner,
        tmp_path,
        evaluate=lambda params: {"heldout/accuracy": evaluation.accuracy(params)},
        evaluate_every=4,
        show_samples=lambda step, rollouts: shown.append((step, rollouts)),
    )
    found = {r["step"]: r.pop("heldout/accuracy", None) for r in ran.rows}
    assert [step for step, value in found.items() if value is not None] == [4, 6]
    assert 0 < found[6] < 1
    assert [step for step, _ in shown] == [4, 6]
    assert len(shown[1][1].problem_ids) == ran.rows[-1]["groups/sampled"]
    assert_same_run(ran, straight)


def test_an_evaluation_that_draws_from_the_trainings_stream_would(
    learner, straight, tmp_path
):
    # Trap 43, kept as a mutant.
    problems = stream()

    def evaluate(params):
        next(problems)
        return {}

    ran = run_rl(
        learner, tmp_path, problems=problems, evaluate=evaluate, evaluate_every=2
    )
    with pytest.raises(AssertionError):
        assert_same_run(ran, straight)


def with_surplus(straight):
    """A step that leaves groups for the next one, and is not the last."""
    return next(row["step"] for row in straight.rows[:-1] if row["groups/surplus"])


def test_an_interrupted_run_resumes_as_if_nothing_had_been(learner, straight, tmp_path):
    stop = with_surplus(straight)
    first = run_rl(learner, tmp_path, stop_after=stop, save_every=100)
    assert first.state.step == stop
    assert first.checkpoints.steps() == [stop]
    assert first.state.surplus is not None
    second = resume(learner, tmp_path)
    second.tokens = first.tokens + second.tokens
    assert_same_run(second, straight)


@pytest.mark.parametrize(
    "forget",
    [
        lambda state, problems: (state.replace(surplus=None), problems),
        lambda state, problems: (state.replace(draws=0), problems),
        lambda state, problems: (state, stream()),
        lambda state, problems: (
            state.replace(
                policy=init_state(state.policy.params, OPTIMIZER.build(), copy=True)
            ),
            problems,
        ),
    ],
    ids=["surplus", "random numbers", "stream", "optimiser"],
)
def test_a_resume_that_forgets_something_would_not(learner, straight, tmp_path, forget):
    # Trap 40, kept as mutants.
    stop = with_surplus(straight)
    first = run_rl(learner, tmp_path, stop_after=stop, save_every=100)
    second = resume(learner, tmp_path, change=forget)
    second.tokens = first.tokens + second.tokens
    with pytest.raises(AssertionError):
        assert_same_run(second, straight)


def test_every_checkpoint_is_a_place_to_go_on_from(learner, straight, tmp_path):
    run_rl(learner, tmp_path, save_every=1)
    for step in (4, 1):
        ran = resume(learner, tmp_path, step=step, save_every=1)
        ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
        assert_same_run(ran, straight)
        assert ran.checkpoints.steps() == list(range(1, STEPS + 1))


def test_a_finished_run_resumes_to_its_end_and_writes_nothing(learner, tmp_path):
    first = run_rl(learner, tmp_path)
    again = resume(learner, tmp_path)
    assert again.tokens == []
    assert again.rows == first.rows
    assert same_trees(again.state.policy, first.state.policy)


def test_an_interrupt_before_the_first_step_leaves_a_checkpoint(learner, tmp_path):
    ran = run_rl(learner, tmp_path, stop_after=0)
    assert ran.checkpoints.steps() == [0]
    assert ran.rows == []
    assert resume(learner, tmp_path).state.step == STEPS


def test_a_step_that_is_given_up_is_all_that_is_lost(learner, straight, tmp_path):
    held, updates = Held(), []

    def update(*given, **more):
        updates.append(learner.update(*given, **more))
        if len(updates) == 7:  # the first of the two of step 4: its input is donated
            assert held.save() == held.save() == 3
            raise GivenUp
        return updates[-1]

    with pytest.raises(GivenUp):
        run_rl(
            dataclasses.replace(learner, update=update),
            tmp_path,
            interrupt=held,
            save_every=100,
        )
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [3]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3
    ran = resume(learner, tmp_path)
    assert not (tmp_path / "metrics.dropped.jsonl").exists()
    ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
    assert_same_run(ran, straight)


def test_a_step_with_a_checkpoint_is_not_saved_again(learner, tmp_path):
    held = Held()
    ran = run_rl(learner, tmp_path, interrupt=held, save_every=1)
    file = tmp_path / "checkpoints" / f"{STEPS:08d}" / "manifest.json"
    before = file.stat()
    assert held.save() == STEPS == ran.state.step
    assert file.stat() == before


def test_a_checkpoint_also_after_minutes_and_of_the_best(learner, tmp_path):
    accuracies = iter([0.1, 0.3, 0.2])
    used = {
        "evaluate": lambda params: {"heldout/accuracy": next(accuracies)},
        "evaluate_every": 2,
        "save_every": 100,
    }
    ran = run_rl(learner, tmp_path / "best", keep_best=1, **used)
    assert ran.checkpoints.steps() == [2, 4, 6]
    assert not ran.checkpoints.is_best(0.3)
    ran = run_rl(learner, tmp_path / "old", save_every=100, save_minutes=1e-9)
    assert ran.checkpoints.steps() == list(range(1, STEPS + 1))


def test_a_run_of_other_settings_is_refused(learner, tmp_path):
    ran = run_rl(learner, tmp_path, stop_after=1)
    with pytest.raises(CheckpointError, match="model: saved tiny, asked large"):
        resume_rl(
            ran.checkpoints,
            FINGERPRINT | {"model": "large"},
            toy_state(learner),
            stream(),
        )


KILLED = """
import os, pathlib, signal, sys
from jaxrl_reason.runs.checkpoint_places import CheckpointPlaces
from tests.rl.loop_helpers import loop_learner, run_rl

path = pathlib.Path(sys.argv[1])
commit = CheckpointPlaces.commit

def commit_or_die(self, step):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, step)

CheckpointPlaces.commit = commit_or_die
run_rl(loop_learner(), path)
"""


def test_a_run_killed_while_it_saves_resumes(learner, straight, tmp_path, root):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    # The fourth row was written, the fourth checkpoint was not.
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [2]
    ran = resume(learner, tmp_path)
    ran.tokens = straight.tokens[: -len(ran.tokens)] + ran.tokens
    assert_same_run(ran, straight)
    assert len(read_metrics(tmp_path / "metrics.dropped.jsonl")) == 2


@pytest.mark.timeout(3600)  # twenty kills take seven minutes
def test_kill_9_at_random_moments_changes_nothing(tmp_path, root, pytestconfig):
    # python -m pytest tests/rl/test_rl_resume.py -k kill_9 --kills 20
    straight = tmp_path / "straight"
    run(straight)

    def start(path, moment, how, draw):
        return killed(path, tmp_path / "compiled", root, moment, how)

    kill_at_random(tmp_path, straight, pytestconfig.getoption("--kills"), start)
