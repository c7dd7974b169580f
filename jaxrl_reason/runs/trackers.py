"""Experiment trackers beside metrics.jsonl: Weights & Biases, Trackio, MLflow.

A tracker is a copy for people to look at. metrics.jsonl is the record, so a tracker
that fails is left out for the rest of the process and never stops a run. Each package
is an extra and is imported when a run asks for it.
"""

import importlib
import importlib.util
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from jaxrl_reason.runs.files import atomic_write

_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a run tells an experiment tracker."""

    def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
        """Begins a run, or goes on with one.

        Args:
          config: settings, versions and command, as nested JSON.
          name: of the run.
          run_id: what an earlier process was given for this run; None for a new one.

        Returns:
          The id under which a later process finds the run again.
        """

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        """Takes a row.

        Args:
          step: of the stage.
          row: "group/name" -> number; nan and inf are allowed.
          stage: name of the log ("metrics" for RL steps, "sft"): each counts its own.
        """

    def finish(self) -> None:
        """Ends the run."""


class _Wandb:
    """Weights & Biases. `WANDB_MODE=offline` keeps a run here for `wandb sync`.

    W&B's own step must rise over a whole run, so every row carries the step of its
    stage ("step", "sft/step"), and charts are drawn over that.

    Args:
      project: of W&B.
      folder: where its files go, in `wandb/`.
    """

    def __init__(self, project: str, folder: Path) -> None:
        self._project, self._folder = project, folder
        self._charted: set[str] = set()

    def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=self._project,
            name=name,
            id=run_id,
            resume="allow",
            config=dict(config),
            dir=str(self._folder),
        )
        found: str = self._run.id
        return found

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        axis = "step" if stage == "metrics" else f"{stage}/step"
        for name in row.keys() - self._charted:
            self._run.define_metric(name, step_metric=axis)
            self._charted.add(name)
        self._run.log({**row, axis: step})

    def finish(self) -> None:
        self._run.finish()


class _Trackio:
    """Trackio, which keeps runs on this machine (`TRACKIO_DIR`); `trackio show`.

    Trackio finds a run again by its name, so the name gets an ending of its own.

    Args:
      project: of Trackio.
      folder: not used.
    """

    def __init__(self, project: str, folder: Path) -> None:
        self._project = project

    def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(
            project=self._project,
            name=run_id or f"{name}-{secrets.token_hex(3)}",
            config=dict(config),
            resume="allow",
            embed=False,
        )
        found: str = self._run.name
        return found

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        self._run.log(dict(row), step=step)

    def finish(self) -> None:
        self._run.finish()


class _Mlflow:
    """MLflow, at `MLFLOW_TRACKING_URI` (MLflow's default: mlflow.db in this folder).

    Args:
      project: MLflow's experiment.
      folder: not used.
    """

    def __init__(self, project: str, folder: Path) -> None:
        self._project = project

    def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
        mlflow = importlib.import_module("mlflow")
        self._metric = importlib.import_module("mlflow.entities").Metric
        self._client = mlflow.MlflowClient()
        if run_id is not None:
            self._id = run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        experiment = self._client.get_experiment_by_name(self._project)
        experiment_id = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(self._project)
        )
        self._id = self._client.create_run(experiment_id, run_name=name).info.run_id
        self._client.log_dict(self._id, dict(config), "config.json")
        return self._id

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(name, x, now, step) for name, x in row.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: Mapping[str, Callable[[str, Path], Tracker]] = {
    "wandb": _Wandb,
    "trackio": _Trackio,
    "mlflow": _Mlflow,
}


class Trackers:
    """The trackers of a run, made by `open_trackers`.

    What each was told stands in a file: the run's id, under which the next process goes
    on, and the last step of each stage. Steps that a resumed run repeats are not sent
    again, since no tracker can take a row back.

    Args:
      path: of the file.
      trackers: name -> tracker, not yet started.
    """

    def __init__(self, path: Path, trackers: Mapping[str, Tracker]) -> None:
        self._path = path
        self._trackers = dict(trackers)
        self._told: dict[str, Any] = {}
        if path.is_file():
            self._told = json.loads(path.read_text("utf-8"))

    def start(self, config: Mapping[str, Any], name: str) -> None:
        """Begins or goes on; see `Tracker.start`."""
        for kind, tracker in list(self._trackers.items()):
            told = self._told.get(kind, {"id": None, "steps": {}})
            run_id = self._attempt(kind, tracker.start, config, name, told["id"])
            if run_id is not None:
                self._told[kind] = {**told, "id": run_id}
        self._save()

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        """Sends a row to every tracker that has not had this step of the stage."""
        for kind, tracker in list(self._trackers.items()):
            steps = self._told[kind]["steps"]
            if step > steps.get(stage, -1):
                self._attempt(kind, tracker.log, step, row, stage)
                if kind in self._trackers:
                    steps[stage] = step
        self._save()

    def finish(self) -> None:
        """Ends the trackers' runs. May be called twice."""
        for kind, tracker in list(self._trackers.items()):
            self._attempt(kind, tracker.finish)
        self._trackers = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.finish()

    def _attempt(self, kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # whatever a tracker does, the run goes on
            _LOG.warning(
                "tracker %s failed and is left out from here on: %s: %s",
                *(kind, type(error).__name__, error),
            )
            del self._trackers[kind]
            return None

    def _save(self) -> None:
        if self._told:
            atomic_write(self._path, json.dumps(self._told, indent=1) + "\n")


def open_trackers(
    kinds: Sequence[str], run_dir: str | Path, *, project: str = "jaxrl_reason"
) -> Trackers:
    """Starts the trackers of a run, or goes on with those it had.

    Args:
      kinds: "wandb", "trackio", "mlflow".
      run_dir: folder of the run, with its config.json; gets `trackers.json`.
      project: where the trackers put the run.

    Returns:
      The trackers, for `MetricsLog`; leaving the `with` block ends their runs.

    Raises:
      ValueError: no such tracker, or its package is not installed.
    """
    folder = Path(run_dir)
    for kind in kinds:
        if kind not in TRACKERS:
            raise ValueError(f"trackers must be of {', '.join(TRACKERS)}, got {kind!r}")
        if importlib.util.find_spec(kind) is None:
            raise ValueError(
                f"tracker {kind} must be installed: pip install 'jaxrl-reason[{kind}]'"
            )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    made = {kind: TRACKERS[kind](project, folder) for kind in kinds}
    trackers = Trackers(folder / "trackers.json", made)
    trackers.start(config, folder.name)
    return trackers
