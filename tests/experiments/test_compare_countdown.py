"""What is compared, with the runs themselves left out."""

import json

import pytest

from experiments import compare_countdown as script
from experiments.compare_countdown import FOLDERS, Comparison


def rows(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.fixture
def dapo_folder(tmp_path):
    """10 RL steps of 7 s, 2 of them evaluation; 50 supervised updates in 5 s."""
    rows(
        tmp_path / "metrics.jsonl",
        [
            {"step": s, "time/step_s": 7.0, "time/evaluate_s": 2.0 * (s % 5 == 0)}
            for s in range(1, 11)
        ],
    )
    rows(
        tmp_path / "sft.jsonl",
        [
            {"step": s, "time/sft_s": 30.0 if s == 50 else 5.0, "sft/tokens": 1000}
            for s in (50, 100, 150)
        ],
    )
    return tmp_path


def test_a_control_gets_the_wall_time_of_rl_without_evaluation(
    dapo_folder, monkeypatch
):
    assert script.rl_seconds(dapo_folder) == 66

    def examples_of(setup, config):
        return lambda update: [([1, 2], [3] * (8 + update % 2))] * config

    # 200 tokens per second once compiled; updates of 10.5 or 21 tokens.
    monkeypatch.setattr(script, "examples_of", examples_of)
    assert script.affordable_updates(dapo_folder, 1, None) == round(66 * 200 / 10.5)
    assert script.affordable_updates(dapo_folder, 2, None) == round(66 * 200 / 21)


@pytest.fixture
def started(monkeypatch):
    """Configs that the methods would be run with."""
    seen = {}

    def run_method(config):
        seen["rl"] = config
        return {"finished": True}

    def run_control(comparison, config, dapo_folder):
        seen["control"], seen["before"] = config, dapo_folder
        return {"finished": True}

    monkeypatch.setattr(script, "run_method", run_method)
    monkeypatch.setattr(script, "run_control", run_control)
    return seen


def test_all_methods_start_from_the_model_that_dapo_started_from(started, tmp_path):
    comparison = Comparison(out=tmp_path)
    trained = tmp_path / "seed7" / "dapo"
    for name, folder in FOLDERS.items():
        started.clear()
        script.run_one(comparison, name, 7)
        config = started.get("rl") or started["control"]
        assert config.seed == 7
        assert config.folder == tmp_path / "seed7" / folder
        if name == "DAPO":
            assert (config.method, config.sft_from) == ("dapo", None)
        elif name == "GRPO":
            assert (config.method, config.sft_from) == ("grpo", trained)
        else:
            assert started["before"] == trained
            # Other traces than the fine-tuning stage saw.
            assert config.sft.seed != comparison.main.sft.seed
            assert config.traces.give_up == (name == "supervised")


def test_what_is_finished_is_not_run_again(tmp_path, monkeypatch):
    def refuse(config):
        raise AssertionError("run again")

    monkeypatch.setattr(script, "run_training", refuse)
    comparison = Comparison(out=tmp_path)
    for folder in FOLDERS.values():
        report = tmp_path / "seed0" / folder / "report.json"
        report.parent.mkdir(parents=True)
        report.write_text(json.dumps({"finished": True, "of": folder}))
    found = {name: script.run_one(comparison, name, 0)["of"] for name in FOLDERS}
    assert found == FOLDERS


def test_the_table_has_a_row_a_method_and_the_gain_of_every_seed():
    def result(before, after):
        return {
            "heldout_accuracy_before": before,
            "heldout_accuracy_rl": after,
            "heldout_avg_before": before,
            "heldout_avg_rl": after,
        }

    results = {
        seed: {name: result(0.2, 0.4 + seed / 10) for name in FOLDERS}
        for seed in (0, 1)
    }
    lines = script.table(results).splitlines()
    assert len(lines) == 2 + 2 * (1 + len(FOLDERS))
    assert lines[0].startswith("| held-out accuracy | seed 0 | seed 1 | mean |")
    assert "| before RL, greedy | 20.0% | 20.0% | 20.0% | - |" in lines
    assert "| DAPO, greedy | 40.0% | 50.0% | 45.0% | +20.0, +30.0 |" in lines
    assert "| GRPO, avg@8 | 40.0% | 50.0% | 45.0% | +20.0, +30.0 |" in lines
