"""`jaxrl-reason train` at toy size: every kind of run, own tasks, own rewards."""

import json
import shlex
import shutil
import signal
import string

import pytest
import yaml

from jaxrl_reason.cli.main import main as command
from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.train.heldout_figures import Heldout
from jaxrl_reason.train.run import finished_report
from tests.cli.tiny_runs import TINY, numbers
from tests.serving.servers import served


def test_fine_tuning_is_a_method(tuned):
    rows = numbers(tuned)
    assert [row["step"] for row in rows] == [30, 60]
    assert rows[1]["sft/loss"] > 0
    assert json.loads((tuned / "report.json").read_text())["steps"] == 60


def test_a_reward_of_ones_own_is_what_rl_learns_from(whole):
    rows = numbers(whole)
    assert [row["step"] for row in rows] == [1, 2]
    # Right or wrong 1 or 0, 0.1 for one token, and DAPO's penalty near the limit.
    assert all(-1 <= row["reward/mean"] <= 1.1 for row in rows)
    assert all(row["reward/grader_failed_fraction"] == 0 for row in rows)
    report = json.loads((whole / "report.json").read_text())
    assert report["more"]["train_problems"] == 22
    assert report["heldout_problems"] == 2
    page = next((whole / "samples").glob("*train*.jsonl")).read_text()
    assert "parity" in json.loads(page.splitlines()[0])["parsed"]


def test_config_yaml_starts_the_same_run_again(train, whole):
    again = train("again", "--config", str(whole / "config.yaml"), tiny=False)
    assert numbers(again) == numbers(whole)
    for run in (whole, again):
        tree = yaml.safe_load((run / "config.yaml").read_text())
        assert "run_dir" not in tree
        assert tree["rl"]["steps"] == 2


def test_resume_auto_starts_goes_on_and_leaves_alone(
    train, folder, whole, monkeypatch, capsys
):
    flags = shlex.split("--sft-from tuned --reward reward.py:parity --resume auto")
    row = Heldout.row

    class Killed(BaseException):
        pass

    def kill(*arguments):
        raise Killed

    def press_ctrl_c(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return row(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Heldout, "row", kill)
        with pytest.raises(Killed):  # in the first step
            train("queued", *flags)
    assert not (folder / "queued" / "checkpoints" / "rl").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Heldout, "row", press_ctrl_c)
        with pytest.raises(SystemExit) as stopped:
            train("queued", *flags)
    assert stopped.value.code == 75
    assert "resume with" in capsys.readouterr().out
    run = train("queued", *flags)
    assert numbers(run) == numbers(whole)
    train("queued", *flags)
    assert "finished before" in capsys.readouterr().out
    settings = read_settings([*TINY, "--run-dir", "queued", *flags])
    assert finished_report(settings)["steps"] == 2


def newest(run, stage):
    """The folder of a stage's newest checkpoint."""
    return max(p for p in (run / "checkpoints" / stage).iterdir() if p.name.isdecimal())


def unfinished_copy(folder, run, name):
    """A copy of a run that has not written its report."""
    copy = folder / name
    shutil.copytree(run, copy)
    (copy / "report.json").unlink()
    (copy / ".lock").unlink(missing_ok=True)
    return copy


def test_resume_auto_goes_on_from_the_newest_whole_checkpoint(
    train, folder, whole, capsys
):
    run = unfinished_copy(folder, whole, "damaged")
    (newest(run, "rl") / "arrays.npz").write_bytes(b"")
    flags = shlex.split("--sft-from tuned --reward reward.py:parity --resume")
    with pytest.raises(ValueError, match=r"00000002 is damaged .*--resume-step 1"):
        train("damaged", *flags, "must")
    train("damaged", *flags, "auto")
    assert numbers(run) == numbers(whole)
    aside = run / "checkpoints" / "rl" / "damaged" / "00000002"
    assert aside.is_dir()
    said = f"is damaged (arrays.npz: has 0 bytes, written with 22) and now in {aside}"
    for text in (capsys.readouterr().out, (run / "run.log").read_text()):
        assert "is damaged (arrays.npz: has 0 bytes" in text.replace("\n", " ")
    assert said.split(" and ")[1] in (run / "run.log").read_text()


def test_resume_auto_fine_tunes_again_if_that_checkpoint_is_damaged(
    train, folder, tuned
):
    flags = ["--method", "sft", "--eval.every", "30", "--resume"]
    run = unfinished_copy(folder, tuned, "retuned")
    (newest(run, "sft") / "extra.json").write_text("x")
    with pytest.raises(ValueError, match="--resume auto sets damaged ones aside"):
        train("retuned", *flags, "must")
    train("retuned", *flags, "auto")
    assert numbers(run) == numbers(tuned)
    # That of another run is left alone.
    (newest(run, "sft") / "extra.json").write_text("x")
    with pytest.raises(ValueError, match=r"no older checkpoint is intact$"):
        train("other", "--sft-from", "retuned", "--resume", "auto")
    assert newest(run, "sft").name == "00000060"


def test_rows_that_changed_under_their_path_are_no_resume(train, folder, tuned):
    rows = (folder / "sums.jsonl").read_text()
    (folder / "other.jsonl").write_text(rows.replace('"solution": 3', '"solution": 4'))
    with pytest.raises(ValueError, match=r"train_rows: saved .*, asked "):
        train("changed", "--task", "other.jsonl", "--sft-from", "tuned")


def test_a_published_system_in_stages(train, tuned, capsys):
    run = train(
        "stages",
        *shlex.split("--method srpo --stages.limits 4 4 --rl.steps 1"),
        *shlex.split("--sft-from tuned --reward reward.py:parity"),
    )
    rows = numbers(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["run/stage"] for row in rows] == [1, 2]
    assert rows[0]["data/problems_active"] == 22
    # From the checkpoint at the end of the first stage into the second.
    command(["replay", str(run), "--step", "2"])
    said = capsys.readouterr().out
    assert "Step 2 was run again from the checkpoint of step 1." in said
    assert "Its row has the same bits as that of the run." in said
    assert "Its state has the same bits as the run's checkpoint." in said


def test_a_published_data_filter_chooses_the_problems(train, tuned):
    run = train(
        "filtered",
        *shlex.split("--method mimo --stages.limits 4 --stages.data-filter"),
        *shlex.split("--rl.steps 1 --sft-from tuned --reward reward.py:parity"),
    )
    kept = json.loads((run / "kept_problems.json").read_text())
    assert 4 <= len(kept) <= 22
    assert len(numbers(run)) == 1


def test_a_server_draws_the_rollouts(train, tuned, tmp_path):
    zero = 2 + sorted(string.printable).index("0")  # id of that character
    versions = []

    def answer(method, path, body):
        if path == "/update_weight_version":
            versions.append(body["new_version"])
        if path == "/weight_info":
            return 200, {"weight_version": versions[-1]}
        if path != "/v1/completions":
            return 200, {"success": True}
        drawn = {
            "token_ids": [zero + body["seed"] % 10, 1],
            "prompt_token_ids": body["prompt"],
            "logprobs": {"token_logprobs": [-1.0, -0.1]},
            "finish_reason": "stop",
        }
        return 200, {"choices": [{"index": 0, "text": "", **drawn}]}

    with served(answer) as url:
        run = train(
            "served",
            *shlex.split("--rl.steps 1 --sft-from tuned --reward reward.py:parity"),
            *("--sampler.endpoint", url, "--sampler.weights-folder", str(tmp_path)),
        )
    (row,) = numbers(run)
    assert row["rollout/length_mean"] == 2
    assert versions == ["0"]


def test_rounds_of_preference_training(train, tuned):
    run = train(
        "dpo",
        *shlex.split("--method dpo --offline.rounds 1 --offline.problems 8"),
        *shlex.split("--sft-from tuned --reward reward.py:parity"),
    )
    (row,) = numbers(run)
    assert 0 <= row["preference/accuracy"] <= 1
    assert 0 <= row["heldout/accuracy"] <= 1


def test_a_reward_model_learns_to_rank(train, tuned):
    run = train(
        "scorer",
        *shlex.split("--method bradley_terry --offline.epochs 2"),
        *shlex.split("--rl.prompts-per-step 2 --offline.problems 8"),
        *shlex.split("--sft-from tuned --reward reward.py:parity"),
    )
    rows = numbers(run)
    assert [row["step"] for row in rows] == [1, 2]
    report = json.loads((run / "report.json").read_text())
    assert report["heldout_accuracy_rl"] is None
    assert (run / "checkpoints" / "reward_model" / "00000002").exists()
