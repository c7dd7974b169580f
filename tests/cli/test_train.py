"""`jaxrl-reason train` at toy size: every kind of run, own tasks, own rewards."""

import json
import shlex
import signal
import string

import pytest
import yaml

from jaxrl_reason.cli.train import read_settings
from jaxrl_reason.rl.heldout import HeldoutEvaluation
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


def test_resume_auto_starts_goes_on_and_leaves_alone(train, whole, monkeypatch, capsys):
    flags = shlex.split("--sft-from tuned --reward reward.py:parity --resume auto")
    accuracy = HeldoutEvaluation.accuracy

    def press_ctrl_c(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return accuracy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(HeldoutEvaluation, "accuracy", press_ctrl_c)
        with pytest.raises(SystemExit) as stopped:
            train("queued", *flags)
    assert stopped.value.code == 130
    assert "resume with" in capsys.readouterr().out
    run = train("queued", *flags)
    assert numbers(run) == numbers(whole)
    train("queued", *flags)
    assert "finished before" in capsys.readouterr().out
    settings = read_settings([*TINY, "--run-dir", "queued", *flags])
    assert finished_report(settings)["steps"] == 2


def test_a_published_system_in_stages(train, tuned):
    run = train(
        "stages",
        *shlex.split("--method srpo --stages.limits 4 4 --rl.steps 1"),
        *shlex.split("--sft-from tuned --reward reward.py:parity"),
    )
    rows = numbers(run)
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["run/stage"] for row in rows] == [1, 2]
    assert rows[0]["data/problems_active"] == 22


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
