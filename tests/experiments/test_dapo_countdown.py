"""The main job made tiny: what it leaves, how it stops and goes on, what it refuses."""

import json
import shlex
import shutil
import signal
import sys
import time

import jax
import pytest

from experiments import dapo_countdown as script
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.train import run as running
from jaxrl_reason.train.run_setup import build_run_setup
from tests.experiments.countdown_helpers import Tiny, refusals

STEPS = 6


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
    assert status == 75, out + err
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
    script.main()
    row = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    assert ("policy/kl" in row) == (method == "grpo")
    assert ("critic/loss" in row) == (method == "vapo")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["steps"] == 1


@pytest.fixture
def refused(tiny, monkeypatch, capsys):
    return refusals(tiny, monkeypatch, capsys)


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


def test_a_folder_with_a_run_is_not_written_over(refused, tiny, finished):
    said = refused("--run-dir", str(tiny.run_dir))
    assert "is not empty; pass --resume" in said


def test_a_finished_run_that_is_queued_again_is_left_as_it_is(
    tiny, finished, monkeypatch, capsys
):
    monkeypatch.setattr(running, "build_run_setup", None)  # nothing is built
    flags = [*tiny.flags, "--run-dir", str(tiny.run_dir), "--resume", "auto"]
    monkeypatch.setattr(sys, "argv", ["dapo_countdown.py", *flags])
    script.main()
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
