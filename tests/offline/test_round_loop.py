"""Rounds with rows, evaluations and checkpoints; resumed as if never interrupted."""

import contextlib
import signal

import jax
import numpy as np
import pytest

from jaxrl_reason.offline.iterative import rft_round
from jaxrl_reason.offline.round_loop import resume_rounds, train_rounds
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.tasks.grade_responses import GraderError
from tests.offline.test_iterative import PROBLEMS, sampler, supervised
from tests.rl.helpers import OPTIMIZER, copied, first_policy, same_trees
from tests.rl.loop_helpers import FINGERPRINT, GivenUp, Held, hooks


def one_round(policy, index):
    return rft_round(
        sampler(), supervised(), OPTIMIZER, policy, PROBLEMS, round_index=index
    )


def run(path, *, rounds=3, policy=None, done=0, play=one_round, **options):
    shown = []
    used = hooks(
        path,
        evaluate=lambda params: {"heldout/accuracy": 0.5},
        evaluate_every=2,
        show_samples=lambda step, rollouts: shown.append(step),
        **{"save_every": 1, **options},
    )
    with used.log:
        policy = policy or first_policy()
        policy = train_rounds(play, policy, used, rounds=rounds, done=done)
    rows = read_metrics(path / "metrics.jsonl")
    for row in rows:
        del row["time/step_s"]
    return policy, rows, used, shown


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return run(tmp_path_factory.mktemp("straight"))


def test_every_round_leaves_a_row_and_a_checkpoint(straight):
    _, rows, used, shown = straight
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert used.checkpoints.steps() == [1, 2, 3]
    assert used.progress.steps == [1, 2, 3]
    assert all(
        {"sft/loss", "sft/updates", "reward/accuracy", "rollout/kept"} <= row.keys()
        for row in rows
    )
    # The second is due, the last always is.
    assert ["heldout/accuracy" in row for row in rows] == [False, True, True]
    assert shown == [2, 3]


def test_an_interrupted_run_resumes_as_if_nothing_had_been(straight, tmp_path):
    policy, rows, _, _ = straight
    _, first, used, _ = run(tmp_path, stop_after=2)
    assert [row["step"] for row in first] == [1, 2]
    state, done = resume_rounds(used.checkpoints, FINGERPRINT, first_policy())
    assert done == 2
    again, both, _, _ = run(tmp_path, policy=state, done=done)
    assert both == rows
    assert same_trees(copied(again.params), copied(policy.params))


def test_a_finished_run_does_nothing_more(straight):
    policy, _, used, _ = straight
    start = jax.tree.map(np.asarray, policy.params)
    again = train_rounds(one_round, policy, used, rounds=3, done=3)
    assert same_trees(start, copied(again.params))
    assert used.progress.steps == [1, 2, 3]


def test_going_back_moves_later_rounds_aside(straight, tmp_path):
    _, _, used, _ = run(tmp_path)
    with pytest.raises(CheckpointError, match="model: saved tiny, asked large"):
        resume_rounds(
            used.checkpoints, FINGERPRINT | {"model": "large"}, first_policy()
        )
    _, done = resume_rounds(used.checkpoints, FINGERPRINT, first_policy(), step=1)
    assert done == 1
    assert used.checkpoints.steps() == [1]


def test_a_round_that_is_given_up_is_all_that_is_lost(straight, tmp_path):
    held = Held()

    def play(policy, index):
        if index == 2:
            assert held.save() == 2
            raise GivenUp
        return one_round(policy, index)

    with pytest.raises(GivenUp):
        run(tmp_path, play=play, interrupt=held, save_every=100)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    kept = CheckpointFolder(tmp_path / "checkpoints")
    state, done = resume_rounds(kept, FINGERPRINT, first_policy())
    again, rows, _, _ = run(tmp_path, policy=state, done=done)
    assert rows == straight[1]
    assert same_trees(copied(again.params), copied(straight[0].params))


@pytest.mark.parametrize("told", [True, False])
def test_a_grader_that_goes_with_the_machine_loses_its_round_alone(
    tmp_path, capsys, told
):
    def play(policy, index):
        if index == 2:
            if told:
                signal.raise_signal(signal.SIGTERM)
            raise GraderError("the grader failed on 16 of 16 responses")
        return one_round(policy, index)

    with GracefulInterrupt() as interrupt, contextlib.ExitStack() as stack:
        if not told:
            stack.enter_context(pytest.raises(GraderError, match="16 of 16"))
        run(tmp_path, play=play, interrupt=interrupt, save_every=100)
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [2]
    said = "round 3 was left out, as the run stops: the grader failed on 16"
    assert (said in capsys.readouterr().out) == told
