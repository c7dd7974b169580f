"""The adapters against fakes of the packages, and the packages where installed."""

import importlib.machinery
import importlib.util
import json
import logging
import math
import sys
import types

import pytest

from jaxrl_reason.runs.metrics_log import MetricsLog, read_metrics, truncate_after
from jaxrl_reason.runs.run_folder import open_run
from jaxrl_reason.runs.trackers import TRACKERS, open_trackers

ROWS = {1: {"policy/loss": 0.5, "reward/mean": 0.25}, 2: {"policy/loss": math.inf}}
LOGGER = "jaxrl_reason.runs.trackers"


class Fakes:
    """Stand-ins for the three packages; `calls` is what reached them, in order."""

    def __init__(self, monkeypatch):
        self.calls, self.failing = [], set()
        self.made = 0
        for name, members in {
            "wandb": {"init": self.wandb_init},
            "trackio": {"init": self.trackio_init},
            "mlflow": {"MlflowClient": lambda: FakeMlflow(self)},
        }.items():
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, name, module)
        entities = types.ModuleType("mlflow.entities")
        entities.Metric = lambda *fields: fields
        monkeypatch.setitem(sys.modules, "mlflow.entities", entities)

    def call(self, name, *arguments):
        if name in self.failing:
            raise ConnectionError(f"{name} is not there")
        self.calls.append((name, *arguments))

    def named(self, name):
        return [arguments for called, *arguments in self.calls if called == name]

    def new_id(self, given):
        self.made += 1
        return given or f"id{self.made}"

    def wandb_init(self, *, id, **options):
        self.call("wandb.init", id, options)
        return types.SimpleNamespace(
            id=self.new_id(id),
            define_metric=lambda name, step_metric: self.call(
                "wandb.define_metric", name, step_metric
            ),
            log=lambda row: self.call("wandb.log", row),
            finish=lambda: self.call("wandb.finish"),
        )

    def trackio_init(self, *, name, **options):
        self.call("trackio.init", name, options)
        return types.SimpleNamespace(
            name=name,
            log=lambda row, step: self.call("trackio.log", row, step),
            finish=lambda: self.call("trackio.finish"),
        )


class FakeMlflow:
    def __init__(self, fakes):
        self.fakes = fakes

    def get_experiment_by_name(self, name):
        if not self.fakes.named("mlflow.create_experiment"):
            return None
        return types.SimpleNamespace(experiment_id="7")

    def create_experiment(self, name):
        self.fakes.call("mlflow.create_experiment", name)
        return "7"

    def create_run(self, experiment_id, run_name):
        self.fakes.call("mlflow.create_run", experiment_id, run_name)
        info = types.SimpleNamespace(run_id=self.fakes.new_id(None))
        return types.SimpleNamespace(info=info)

    def update_run(self, run_id, status):
        self.fakes.call("mlflow.update_run", run_id, status)

    def log_dict(self, run_id, content, path):
        self.fakes.call("mlflow.log_dict", run_id, content, path)

    def log_batch(self, run_id, metrics):
        self.fakes.call("mlflow.log", run_id, metrics)

    def set_terminated(self, run_id):
        self.fakes.call("mlflow.finish", run_id)


@pytest.fixture
def fakes(monkeypatch):
    return Fakes(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    open_run(tmp_path / "first", {"seed": 3}, argv=["x.py"]).close()
    return tmp_path / "first"


def write(folder, kinds, rows, name="metrics"):
    with (
        open_trackers(kinds, folder, project="sums") as trackers,
        MetricsLog(folder, tensorboard=False, name=name, trackers=trackers) as log,
    ):
        for step, row in rows.items():
            log.write(step, row)


def test_wandb_gets_the_settings_and_every_row_over_the_step_of_its_stage(
    fakes, folder
):
    write(folder, ["wandb"], ROWS)
    ((given_id, options),) = fakes.named("wandb.init")
    assert given_id is None
    assert (options["project"], options["name"]) == ("sums", "first")
    assert options["config"]["settings"] == {"seed": 3}
    assert options["resume"] == "allow"
    assert options["dir"] == str(folder)
    assert fakes.named("wandb.log") == [
        [{**ROWS[1], "step": 1}],
        [{**ROWS[2], "step": 2}],
    ]
    axes = fakes.named("wandb.define_metric")
    assert sorted(axes) == [["policy/loss", "step"], ["reward/mean", "step"]]
    write(folder, ["wandb"], {50: {"sft/loss": 2.0}}, name="sft")
    assert fakes.named("wandb.log")[-1] == [{"sft/loss": 2.0, "sft/step": 50}]
    assert fakes.named("wandb.define_metric")[-1] == ["sft/loss", "sft/step"]
    assert len(fakes.named("wandb.finish")) == 2


def test_trackio_gets_the_settings_and_every_row(fakes, folder):
    write(folder, ["trackio"], ROWS)
    ((name, options),) = fakes.named("trackio.init")
    assert name.startswith("first-")
    assert options["config"]["settings"] == {"seed": 3}
    assert fakes.named("trackio.log") == [[ROWS[1], 1], [ROWS[2], 2]]
    assert len(fakes.named("trackio.finish")) == 1


def test_mlflow_gets_the_settings_and_every_row(fakes, folder):
    write(folder, ["mlflow"], ROWS)
    assert fakes.named("mlflow.create_experiment") == [["sums"]]
    assert fakes.named("mlflow.create_run") == [["7", "first"]]
    ((run_id, config, path),) = fakes.named("mlflow.log_dict")
    assert (run_id, config["settings"], path) == ("id1", {"seed": 3}, "config.json")
    first, second = fakes.named("mlflow.log")
    assert [(n, x, step) for n, x, _, step in first[1]] == [
        ("policy/loss", 0.5, 1),
        ("reward/mean", 0.25, 1),
    ]
    assert [(n, x, step) for n, x, _, step in second[1]] == [
        ("policy/loss", math.inf, 2)
    ]
    assert fakes.named("mlflow.finish") == [["id1"]]
    # The next run goes into the same experiment.
    (folder / "trackers.json").unlink()
    write(folder, ["mlflow"], {3: {"policy/loss": 0.0}})
    assert len(fakes.named("mlflow.create_experiment")) == 1
    assert len(fakes.named("mlflow.create_run")) == 2


def test_a_resumed_run_goes_on_under_its_id(fakes, folder):
    write(folder, list(TRACKERS), ROWS)
    ids = {
        kind: told["id"]
        for kind, told in json.loads((folder / "trackers.json").read_text()).items()
    }
    write(folder, list(TRACKERS), {3: {"policy/loss": 0.0}})
    assert fakes.named("wandb.init")[1][0] == ids["wandb"] == "id1"
    assert fakes.named("trackio.init")[1][0] == ids["trackio"]
    assert fakes.named("trackio.init")[1][1]["resume"] == "allow"
    assert fakes.named("mlflow.update_run") == [[ids["mlflow"], "RUNNING"]]
    assert len(fakes.named("mlflow.create_run")) == 1
    assert fakes.named("mlflow.log")[-1][0] == ids["mlflow"]


@pytest.mark.parametrize("kind", TRACKERS)
def test_steps_that_a_resumed_run_repeats_are_sent_once(fakes, folder, kind):
    write(folder, [kind], {1: ROWS[1], 2: ROWS[1], 3: ROWS[1]})
    truncate_after(folder / "metrics.jsonl", 1)
    write(folder, [kind], {2: ROWS[1], 3: ROWS[1], 4: ROWS[1]})
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [
        *(1, 2, 3, 4)
    ]
    assert len(fakes.named(f"{kind}.log")) == 4
    # Another stage counts its own steps.
    write(folder, [kind], {1: {"sft/loss": 1.0}}, name="sft")
    assert len(fakes.named(f"{kind}.log")) == 5


@pytest.mark.parametrize("kind", TRACKERS)
@pytest.mark.parametrize("place", ["log", "finish"])
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    fakes, folder, caplog, kind, place
):
    other = next(name for name in TRACKERS if name != kind)
    fakes.failing.add(f"{kind}.{place}")
    with caplog.at_level(logging.WARNING, LOGGER):
        write(folder, [kind, other], ROWS)
    assert len(read_metrics(folder / "metrics.jsonl")) == 2
    assert len(fakes.named(f"{other}.log")) == 2
    (warning,) = caplog.messages
    assert warning == (
        f"tracker {kind} failed and is left out from here on: "
        f"ConnectionError: {kind}.{place} is not there"
    )
    # The next process tries again, and sends what did not arrive.
    fakes.failing.clear()
    truncate_after(folder / "metrics.jsonl", 0)
    write(folder, [kind, other], ROWS)
    assert len(fakes.named(f"{kind}.log")) == len(fakes.named(f"{other}.log")) == 2


@pytest.mark.parametrize("place", ["wandb.init", "trackio.init", "mlflow.create_run"])
def test_a_tracker_that_does_not_start_is_left_out(fakes, folder, caplog, place):
    kind = place.split(".")[0]
    fakes.failing.add(place)
    with caplog.at_level(logging.WARNING, LOGGER):
        write(folder, [kind], ROWS)
    assert len(caplog.messages) == 1
    assert fakes.named(f"{kind}.log") == []
    assert len(read_metrics(folder / "metrics.jsonl")) == 2


def test_unknown_and_absent_trackers_are_refused_before_the_run(folder, monkeypatch):
    with pytest.raises(ValueError, match="of wandb, trackio, mlflow, got 'tb'"):
        open_trackers(["tb"], folder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'jaxrl-reason\[mlflow\]'"):
        open_trackers(["mlflow"], folder)
    assert not (folder / "trackers.json").exists()


def test_without_trackers_nothing_is_written(folder):
    write(folder, [], ROWS)
    assert not (folder / "trackers.json").exists()


# The packages themselves, offline, where the extras are installed.


def test_wandb_keeps_an_offline_run(folder, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for rows in (ROWS, {3: ROWS[1]}):
        write(folder, ["wandb"], rows)
    run_id = json.loads((folder / "trackers.json").read_text())["wandb"]["id"]
    runs = list((folder / "wandb").glob(f"offline-run-*-{run_id}"))
    assert runs
    assert all(list(run.glob("*.wandb")) for run in runs)


def test_trackio_keeps_runs_on_this_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read at import
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    for rows in (ROWS, {3: ROWS[1]}):
        write(folder, ["trackio"], rows)
    name = json.loads((folder / "trackers.json").read_text())["trackio"]["id"]
    found = SQLiteStorage.get_logs("sums", name)
    assert [row["step"] for row in found if "policy/loss" in row] == [1, 2, 3]


@pytest.mark.filterwarnings("default")  # SQLAlchemy's, about MLflow
def test_mlflow_keeps_runs_in_a_database_file(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # config.json goes to mlruns/ here
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    for rows in (ROWS, {3: ROWS[1]}):
        write(folder, ["mlflow"], rows)
    run_id = json.loads((folder / "trackers.json").read_text())["mlflow"]["id"]
    client = mlflow.MlflowClient()
    found = client.get_metric_history(run_id, "policy/loss")
    assert [(point.step, point.value) for point in found][::2] == [(1, 0.5), (3, 0.5)]
    assert client.get_run(run_id).info.status == "FINISHED"
