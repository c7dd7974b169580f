"""Experiment trackers besides metrics.jsonl: Weights & Biases, Trackio, MLflow.

A tracker is a copy for viewing; metrics.jsonl is the record. So a tracker that fails is
disabled for the rest of the process and never stops a run. Each package is an extra and
is imported only when a run uses it.
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
    """An experiment tracker, as a run uses it."""

    def start(self, config: Mapping[str, Any], name: str, run_id: str | None) -> str:
        """Starts or resumes a run.

        Args:
          config: settings, versions and command, as nested JSON.
          name: of the run.
          run_id: the id that an earlier process got for this run; None for a new one.

        Returns:
          The id with which a later process can resume the run.
        """

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        """Logs a row.

        Args:
          step: of the stage.
          row: "group/name" -> number; nan and inf are allowed.
          stage: name of the log ("metrics" for RL steps, "sft"); each has its own
            steps.
        """

    def finish(self) -> None:
        """Ends the run."""


class _Wandb:
    """Weights & Biases. `WANDB_MODE=offline` keeps a run locally for `wandb sync`.

    W&B's own step must increase over a whole run, so every row has the step of its
    stage ("step", "sft/step"), which is the x-axis of the charts.

    Args:
      project: of W&B.
      folder: for its files, in `wandb/`.
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

    Trackio resumes a run by its name, so the name gets a unique suffix.

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
    """The trackers of a run, created by `open_trackers`.

    A file records for each the run's id, with which the next process resumes, and the
    last step of each stage. Steps that a resumed run repeats are not sent again, since
    a tracker cannot remove rows.

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
        """Starts or resumes; see `Tracker.start`."""
        for kind, tracker in list(self._trackers.items()):
            told = self._told.get(kind, {"id": None, "steps": {}})
            run_id = self._attempt(kind, tracker.start, config, name, told["id"])
            if run_id is not None:
                self._told[kind] = {**told, "id": run_id}
        self._save()

    def log(self, step: int, row: Mapping[str, float], stage: str) -> None:
        """Sends a row to every tracker that does not have this step yet."""
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
        except Exception as error:  # the run continues after any error
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
    """Starts or resumes the trackers of a run.

    Args:
      kinds: "wandb", "trackio", "mlflow".
      run_dir: folder of the run, with its config.json; gets `trackers.json`.
      project: of the trackers.

    Returns:
      The trackers, for `MetricsLog`; leaving the `with` block ends their runs.

    Raises:
      ValueError: a tracker is unknown, or its package is not installed.
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
