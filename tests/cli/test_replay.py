"""`jaxrl-reason replay`: steps of a run once more."""

import json
import shutil

import numpy as np
import pytest
import yaml

from jaxrl_reason.cli.main import main
from jaxrl_reason.runs.run_diff import checkpoint_arrays
from jaxrl_reason.train import replay_run
from jaxrl_reason.train.replay_run import settings_of
from tests.cli.tiny_runs import numbers

NORM = "policy/params/final_norm/scale"


def files(folder):
    """Every file of a run and its contents, without replays and the lock."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("replay", ".lock")
    }


def test_a_step_has_the_same_bits_again(folder, whole, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = files(whole)
    main(["replay", str(whole), "--step", "1"])
    said = capsys.readouterr().out
    assert "Step 1 was run again from the beginning." in said
    assert "Its row has the same bits as that of the run." in said
    assert "Its state has the same bits as the run's checkpoint." in said
    assert files(whole) == before
    out = whole / "replay" / "00000001"
    responses, tokens = (
        [json.loads(line) for line in (out / name).read_text().splitlines()]
        for name in ("responses.jsonl", "tokens.jsonl")
    )
    updates = {r["update"] for r in responses}
    total = sum(r["loss"] for r in responses) / len(updates)
    assert abs(total - numbers(whole)[0]["policy/loss"]) < 1e-5
    assert abs(sum(t["loss"] for t in tokens) / len(updates) - total) < 1e-5
    assert len(tokens) == sum(r["length"] for r in responses)
    assert "## Responses, the largest parts first" in (out / "replay.md").read_text()


def test_a_number_that_differs_is_named(folder, whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["policy/loss"] += 1e-9
    # A warning of two rows: the second has its column, in the replay, too.
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["warnings"] = {"entropy": 100.0, "rows": 2}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    rows[1]["warning/entropy_at_0"] = 1.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(run), "--step", "2", "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "Step 2 was run again from the checkpoint of step 1." in said
    assert "These numbers are not those of the run" in said
    named = [line for line in said.splitlines() if line.startswith("- ")]
    assert [line.partition(": A ")[0] for line in named] == ["- policy/loss"]
    assert "Its state has the same bits as the run's checkpoint." in said
    assert (tmp_path / "out" / "replay.md").exists()


def test_a_state_that_differs_is_named(folder, whole, tmp_path, monkeypatch, capsys):
    def other_arrays(checkpoints, step):
        found = checkpoint_arrays(checkpoints, step)
        return found | {NORM: np.nextafter(found[NORM], 2)}

    monkeypatch.setattr(replay_run, "checkpoint_arrays", other_arrays)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(whole), "--step", "2", "--out", str(tmp_path / "out")])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "Its row has the same bits as that of the run." in said
    assert "These arrays are not those of the run's checkpoint:" in said
    named = [line for line in said.splitlines() if line.startswith("- ")]
    assert [line.split()[1].rstrip(":") for line in named] == [NORM]


def test_what_cannot_be_replayed_is_said(folder, whole, tuned, monkeypatch):
    monkeypatch.chdir(folder)
    for run, step, rule in (
        (folder, 1, "must have a config.yaml"),
        (whole, 3, "step must be from 1 to 2, got 3"),
        (tuned, 1, "a replay is for RL, got method sft$"),
    ):
        with pytest.raises(SystemExit, match=rule):
            main(["replay", str(run), "--step", str(step)])


def test_a_mesh_of_all_devices_is_one_of_as_many_as_the_run_had(whole, tmp_path):
    for name in ("config.yaml", "config.json"):
        shutil.copy(whole / name, tmp_path / name)
    assert settings_of(tmp_path).mesh == "data=1"
    config = json.loads((tmp_path / "config.json").read_text())
    config["devices"] |= {"count": 4, "processes": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert settings_of(tmp_path).mesh == "data=4"
