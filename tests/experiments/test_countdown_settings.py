"""Settings of the main job: which are refused, and what they change."""

import shlex

import numpy as np
import pytest

from jaxrl_reason.tasks.countdown import Problem
from jaxrl_reason.tasks.countdown_traces import make_trace
from jaxrl_reason.train.examples import in_random_order
from jaxrl_reason.train.run_setup import build_run_setup
from tests.experiments.countdown_helpers import Tiny, refusals


@pytest.fixture(scope="module")
def tiny(root, tmp_path_factory):
    return Tiny(root, tmp_path_factory.mktemp("countdown"))


@pytest.fixture
def refused(tiny, monkeypatch, capsys):
    return refusals(tiny, monkeypatch, capsys)


def test_an_unknown_mesh_axis_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--mesh", "banana=2")
    assert "mesh axes are data, fsdp, context, tensor; got 'banana'" in said
    assert not (tmp_path / "new").exists()


def test_a_value_out_of_range_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--rl.group-size", "1")
    assert "group_size must be >= 2 for dapo, got 1" in said


def test_a_method_that_nobody_knows_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--method", "grop")
    assert "method must be one of dapo, grpo, dr_grpo, ppo, " in said
    assert " deepseekmath, " in said
    assert "got 'grop'" in said


def test_value_pretraining_needs_a_critic(refused, tmp_path):
    flags = ("--run-dir", str(tmp_path / "new"), "--rl.value-pretraining-steps", "2")
    said = refused(*flags, "--method", "gspo")
    assert "value_pretraining_steps must be 0 for gspo, which has no critic" in said


def test_the_bound_of_dynamic_sampling_may_be_changed_for_a_resume(tiny):
    before, after = tiny.config(), tiny.config("--rl.max-rounds", "60")
    assert before.rl != after.rl
    assert before.fingerprint() == after.fingerprint()


def test_priming_shows_a_puzzle_in_many_orders():
    problem = Problem((2, 3, 7), 13, "2 * 3 + 7", 0)
    rng = np.random.default_rng(0)
    orders = {in_random_order(problem, rng).numbers for _ in range(50)}
    assert len(orders) == 6
    assert {tuple(sorted(numbers)) for numbers in orders} == {(2, 3, 7)}


def test_examples_follow_from_the_number_of_the_update(tiny):
    # A resumed run must see the examples that the stopped one would have seen.
    going_on, started_later = (
        build_run_setup(tiny.config()).examples for _ in range(2)
    )
    assert going_on(0) != going_on(1)
    assert going_on(2) == started_later(2)


def test_every_setting_of_the_traces_can_be_given(tiny):
    # A value worked out in the default's own constructor once stood for all of them.
    usual = tiny.config("--traces.budget-weights", "1.0")
    other = tiny.config("--traces.budget-weights", "0.0", "1.0")
    rng = np.random.default_rng(0)
    problem = build_run_setup(usual).problems.train[0]
    lengths = [
        {len(make_trace(problem, rng, c.trace_settings).split()) for _ in range(50)}
        for c in (usual, other)
    ]
    assert max(lengths[0]) < max(lengths[1])


def test_puzzles_that_leave_no_problem_are_refused(refused, tmp_path):
    said = refused(
        "--run-dir", str(tmp_path / "new"), "--countdown.max-number", "1",
        "--countdown.max-value", "1", "--dataset-dir", str(tmp_path),
    )  # fmt: skip
    assert "every split needs at least one problem" in said


def test_nothing_to_resume_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--resume", "must")
    assert "nothing to resume" in said


def test_eight_devices_whose_number_does_not_divide_the_vocabulary(tiny, tmp_path):
    flags = """
        --mesh data=2,fsdp=2,tensor=2 --sft.updates 2 --sft.rows-per-micro-batch 4
        --rl.rows-per-micro-batch 4 --rl.steps 1 --dapo.no-dynamic-sampling
        --eval.problems 4
    """
    process = tiny.start("--run-dir", str(tmp_path / "run"), *shlex.split(flags))
    try:
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    assert (tmp_path / "run" / "report.json").exists()
