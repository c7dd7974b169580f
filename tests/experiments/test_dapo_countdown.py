"""The main job made tiny: what it leaves, how it stops and goes on, what it refuses."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import dapo_countdown as script
from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.evaluation.statistics import wilson
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics import read_metrics
from jaxrl_reason.tasks.countdown import Problem
from jaxrl_reason.tasks.countdown_traces import make_trace
from jaxrl_reason.train import run as running
from jaxrl_reason.train.examples import in_random_order
from jaxrl_reason.train.heldout_figures import Heldout
from jaxrl_reason.train.run_setup import build_run_setup

# Two-number puzzles with small targets, which a model of 5,000 parameters learns in a
# second; one try a trace, so that responses are short.
TINY = shlex.split("""
    --method dapo --mesh data=1 --eval.problems 8 --eval.every 3 --save-every 2
    --countdown.numbers 2 --countdown.max-number 4 --countdown.max-value 10
    --countdown.hold-out pairs
    --traces.budget-weights 1.0 --traces.random-tries 1.0 --traces.max-value 10
    --model 1x16 --model.head-dim 8 --model.mlp-dim 32
    --sft.updates 150 --sft.examples-per-update 8 --sft.rows-per-micro-batch 2
    --sft.row-width 64 --sft.max-response 24 --sft-optimizer.learning-rate 0.02
    --rl.steps 6 --rl.prompts-per-step 4 --rl.group-size 4 --rl.updates-per-rollout 2
    --rl.max-new-tokens 24 --rl.rows-per-micro-batch 2 --rl.row-width 64
    --rl.max-rounds 30 --optimizer.learning-rate 0.002
""")
STEPS = 6


class Tiny:
    """The command line of a tiny run in one folder."""

    def __init__(self, root, base):
        self.root, self.base = root, base
        self.run_dir = base / "run"
        self.flags = [*TINY, "--dataset-dir", str(base / "data")]

    def config(self, *more):
        """The settings that this command line means."""
        return read_settings([*self.flags, *more], preset="countdown")

    def start(self, *more):
        """The script in a process of its own."""
        flags = [*self.flags, "--run-dir", str(self.run_dir), *more]
        return subprocess.Popen(
            [sys.executable, "experiments/dapo_countdown.py", *flags],
            cwd=self.root,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                # The resumed process finds what the first one compiled.
                "JAX_COMPILATION_CACHE_DIR": str(self.base / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="module")
def tiny(root, tmp_path_factory):
    return Tiny(root, tmp_path_factory.mktemp("countdown"))


@pytest.fixture(scope="module")
def stopped(tiny):
    """A run that somebody stops in its second step or so."""
    process = tiny.start()
    try:
        while not read_metrics(tiny.run_dir / "metrics.jsonl"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    rows = read_metrics(tiny.run_dir / "metrics.jsonl")
    assert not (tiny.run_dir / "report.json").exists()
    return process.returncode, out, err, rows


@pytest.fixture(scope="module")
def finished(tiny, stopped):
    """The same run after --resume auto."""
    process = tiny.start("--resume", "auto")
    try:
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, out + err
    return out, err


def test_ctrl_c_leaves_a_run_that_resumes(tiny, stopped):
    status, out, err, rows = stopped
    assert status == 130, out + err
    assert "finishing this step, then saving" in err
    assert "Traceback" not in err
    assert f"--resume must --run-dir {tiny.run_dir}" in out
    assert 1 <= rows[-1]["step"] < STEPS
    saved = sorted(path.name for path in (tiny.run_dir / "checkpoints/rl").iterdir())
    assert f"{rows[-1]['step']:08d}" in saved


def test_the_resumed_run_writes_every_step_once(tiny, stopped, finished):
    rows = read_metrics(tiny.run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    before = stopped[3]
    assert rows[: len(before)] == before
    evaluated = [row["step"] for row in rows if "heldout/accuracy" in row]
    assert evaluated == [3, 6]
    assert all(row["policy/ratio"] != 1 for row in rows)


def test_the_folder_holds_what_a_run_leaves(tiny, finished):
    names = shlex.split("""
        config.json config.yaml before.json sft.jsonl metrics.jsonl curves.png
        report.json report.md samples checkpoints/sft checkpoints/rl tensorboard
    """)
    for name in names:
        assert (tiny.run_dir / name).exists(), name
    assert (tiny.run_dir / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in (tiny.run_dir / "checkpoints/rl").iterdir())[-1] == (
        f"{STEPS:08d}"
    )
    samples = sorted(p.name for p in (tiny.run_dir / "samples").iterdir())
    assert any("train" in name for name in samples)
    assert any("held-out" in name for name in samples)
    config = json.loads((tiny.run_dir / "config.json").read_text())
    assert config["settings"]["rl"]["steps"] == STEPS
    assert len(config["resumed"]) == 1
    assert config["versions"]["jax"] == jax.__version__


def test_samples_are_readable_and_graded(tiny, finished):
    path = max((tiny.run_dir / "samples").glob("*held-out*.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        assert row["prompt"].endswith("<think>")
        assert row["length"] == len(row["answer"].split())
        assert isinstance(row["correct"], bool)


def test_the_report_says_what_came_out(tiny, finished):
    report = json.loads((tiny.run_dir / "report.json").read_text())
    assert report["finished"]
    assert report["steps"] == STEPS
    assert (report["method"], report["seed"]) == ("dapo", 0)
    assert report["heldout_problems"] == 8
    assert report["heldout_samples"] == 8
    for stage in ("before", "rl"):
        assert 0 <= report[f"heldout_accuracy_{stage}"] <= 1
        assert 0 <= report[f"heldout_avg_{stage}"] <= 1
    gain = report["heldout_accuracy_rl"] - report["heldout_accuracy_before"]
    assert report["heldout_gain_points"] == pytest.approx(100 * gain)
    assert report["wall_seconds"].keys() >= {"set-up", "sft", "dapo", "evaluation"}
    for name in ("rollout_tokens_per_second", "train_tokens_per_second"):
        assert report[name] > 0
    assert report["peak_memory_bytes"] > 2**27
    assert report["compiles_after_warm_up"] == 0
    assert report["settings"]["model"]["source"] == "1x16"
    assert "jax" in report["versions"]


def test_the_console_says_what_came_out(tiny, finished):
    out, err = finished
    assert "Traceback" not in err
    assert "held-out accuracy" in out
    assert "peak memory" in out
    assert str(tiny.run_dir / "curves.png") in out


def test_a_run_goes_on_over_two_devices(tiny, finished, tmp_path):
    copy = shutil.copytree(tiny.run_dir, tmp_path / "run")
    elsewhere = Tiny(tiny.root, tiny.base)
    elsewhere.run_dir = copy
    process = elsewhere.start(
        "--resume", "must", "--resume-step", "4", "--mesh", "data=2"
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    one, two = (read_metrics(d / "metrics.jsonl") for d in (tiny.run_dir, copy))
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    # What the policy says of its tokens before its updates: the second update starts
    # from a step of Adam, and nothing bounds how far rounding moves that.
    entropies = [row["policy/entropy_sampled"] for row in (one[4], two[4])]
    assert entropies[1] == pytest.approx(entropies[0], abs=1e-5)
    assert two[4]["rollout/length_mean"] == one[4]["rollout/length_mean"]


@pytest.mark.parametrize("method", ["grpo", "vapo"])
def test_the_other_methods_run_from_the_command_line(
    method, tiny, finished, tmp_path, monkeypatch, capsys
):
    flags = [*tiny.flags, "--run-dir", str(tmp_path / "run"), "--method", method]
    flags += ["--sft-from", str(tiny.run_dir), "--rl.steps", "1"]
    monkeypatch.setattr(sys, "argv", ["dapo_countdown.py", *flags])
    assert script.main() == 0, capsys.readouterr()
    row = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    assert ("policy/kl" in row) == (method == "grpo")
    assert ("critic/loss" in row) == (method == "vapo")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["steps"] == 1


@pytest.fixture
def refused(tiny, monkeypatch, capsys):
    """Runs the script in this process; what it says when it refuses."""

    def run(*flags):
        # This process has its devices already.
        monkeypatch.setattr(jax.config, "update", lambda *setting: None)
        monkeypatch.setattr(sys, "argv", ["dapo_countdown.py", *tiny.flags, *flags])
        # What is refused here is refused whatever the fine-tuned model can do.
        nothing = {"greedy": wilson(0, 8), "avg_at_8": wilson(0, 64)}
        monkeypatch.setattr(Heldout, "before", lambda *x: nothing)
        try:
            status = script.main()
        except SystemExit as error:  # of the command line's parser
            status = error.code
        captured = capsys.readouterr()
        assert status not in (0, None)
        assert "Traceback" not in captured.err
        return " ".join((captured.err + captured.out).split())

    return run


def test_an_unknown_mesh_axis_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--mesh", "banana=2")
    assert "mesh axes are data, fsdp, tensor; got 'banana'" in said
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


def test_a_resume_step_without_checkpoint_is_refused(refused, tiny, finished, tmp_path):
    copy = shutil.copytree(tiny.run_dir, tmp_path / "run")
    said = refused("--run-dir", str(copy), "--resume", "must", "--resume-step", "5")
    assert "no checkpoint of step 5" in said
    shutil.rmtree(copy / "checkpoints" / "rl")
    said = refused("--run-dir", str(copy), "--resume", "must", "--resume-step", "2")
    assert "no checkpoint in" in said


def test_a_half_trained_model_is_refused(refused, tiny, finished, tmp_path):
    # As an interrupt leaves it: settings of the whole stage, fewer updates done.
    copy = shutil.copytree(tiny.run_dir / "checkpoints", tmp_path / "a" / "checkpoints")
    folder = CheckpointFolder(copy / "sft")
    step, settings = folder.steps()[-1], folder.fingerprint()
    setup = build_run_setup(tiny.config())
    state = setup.built.init(setup.settings.sft_schedule())
    shutil.rmtree(folder.path)
    folder.save(step - 50, state.replace(step=state.step + 100), fingerprint=settings)
    said = refused(
        "--run-dir", str(tmp_path / "new"), "--sft-from", str(tmp_path / "a")
    )
    assert "must hold a model trained for 150 updates, got one of 100" in said


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
        {len(make_trace(problem, rng, c.traces).split()) for _ in range(50)}
        for c in (usual, other)
    ]
    assert max(lengths[0]) < max(lengths[1])


def test_puzzles_that_leave_no_problem_are_refused(refused, tmp_path):
    said = refused(
        "--run-dir", str(tmp_path / "new"), "--countdown.max-number", "1",
        "--countdown.max-value", "1", "--dataset-dir", str(tmp_path),
    )  # fmt: skip
    assert "every split needs at least one problem" in said


def test_a_folder_with_a_run_is_not_written_over(refused, tiny, finished):
    said = refused("--run-dir", str(tiny.run_dir))
    assert "is not empty; pass --resume" in said


def test_nothing_to_resume_is_refused(refused, tmp_path):
    said = refused("--run-dir", str(tmp_path / "new"), "--resume", "must")
    assert "nothing to resume" in said


def test_a_finished_run_that_is_queued_again_is_left_as_it_is(
    tiny, finished, monkeypatch, capsys
):
    monkeypatch.setattr(running, "build_run_setup", None)  # nothing is built
    flags = [*tiny.flags, "--run-dir", str(tiny.run_dir), "--resume", "auto"]
    monkeypatch.setattr(sys, "argv", ["dapo_countdown.py", *flags])
    assert script.main() == 0
    assert f"finished before: {tiny.run_dir / 'report.md'}" in capsys.readouterr().out


def test_the_run_of_another_model_is_refused(refused, tiny, finished, tmp_path):
    copy = shutil.copytree(tiny.run_dir, tmp_path / "run")
    said = refused("--run-dir", str(copy), "--resume", "must", "--model", "1x32")
    assert "has other settings" in said
    assert "hidden_size: saved 16, asked 32" in said
    said = refused("--run-dir", str(copy), "--resume", "must", "--rl.group-size", "8")
    assert "group_size: saved 4, asked 8" in said


def test_a_damaged_checkpoint_is_named_with_an_intact_one(
    refused, tiny, finished, tmp_path
):
    copy = shutil.copytree(tiny.run_dir, tmp_path / "run")
    folder = copy / "checkpoints" / "rl" / f"{STEPS:08d}"
    largest = max(folder.rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    said = refused("--run-dir", str(copy), "--resume", "must")
    assert "is damaged" in said
    assert largest.name in said
    assert "--resume-step 4" in said


def test_prompts_that_do_not_divide_into_updates_are_refused(
    refused, tiny, finished, tmp_path
):
    said = refused(
        "--run-dir", str(tmp_path / "new"), "--sft-from", str(tiny.run_dir),
        "--rl.updates-per-rollout", "3",
    )  # fmt: skip
    assert "prompts_per_step (4) must be a multiple of the updates per rollout" in said


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
