"""The outputs of a run's process, and the interface of a stage."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.profile import StepProfile
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.trackers import Trackers
from jaxrl_reason.sharding.processes import is_main
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class Session:
    """The outputs of this process, and whether it was asked to stop.

    Attributes:
      settings: of the run.
      run: the folder of the run.
      trackers: other destinations of its rows.
      progress: the console output.
      interrupt: whether a stop was requested.
    """

    settings: TrainSettings
    run: RunFolder
    trackers: Trackers
    progress: TrainingProgress
    interrupt: GracefulInterrupt
    _opened: list[CheckpointFolder] = field(default_factory=list)

    def log(self, name: str = "metrics") -> MetricsLog:
        """The log of a stage: a file, TensorBoard and the trackers."""
        return MetricsLog(self.run.path, name=name, trackers=self.trackers)

    def checkpoints(self, stage: str, keep: int | None = None) -> CheckpointFolder:
        """The checkpoints of a stage; `resume auto` sets damaged ones aside first.

        Args:
          stage: name of the folder.
          keep: how many of the newest are kept; as the settings say if left out.
        """
        settings = self.settings
        folder = CheckpointFolder(
            checkpoints_path(self.run.path, settings.checkpoints.folder, stage),
            keep=settings.keep if keep is None else keep,
            keep_best=settings.checkpoints.keep_best if keep is None else 0,
            background=settings.checkpoints.background,
        )
        self._opened.append(folder)
        if settings.resume == "auto" and settings.resume_step is None:
            for sentence in folder.set_aside_damaged():
                self.progress.note(sentence)
        return folder

    def close(self) -> None:
        """Waits for checkpoints that are being written."""
        for folder in self._opened:
            folder.wait()

    def profile(self, step: int) -> StepProfile | None:
        """Traces that step to the run's folder; 0 for none."""
        traced = step and is_main()
        return StepProfile(step, self.run.path / "profile") if traced else None


def checkpoints_path(run: Path, folder: str | None, stage: str) -> str | Path:
    """The place of a stage's checkpoints.

    Args:
      run: folder of the run.
      folder: `checkpoints.folder` of its settings.
      stage: name of the stage.

    >>> str(checkpoints_path(Path("runs/a"), None, "rl"))
    'runs/a/checkpoints/rl'
    >>> checkpoints_path(Path("runs/a"), "gs://bucket/a/", "rl")
    'gs://bucket/a/rl'
    """
    if folder is None:
        return run / "checkpoints" / stage
    return f"{folder.rstrip('/')}/{stage}"


def checkpoints_of(run: Path, stage: str) -> CheckpointFolder:
    """The checkpoints of a stage of another run, which are only read.

    Args:
      run: folder of that run.
      stage: name of the stage.
    """
    config = run / "config.json"
    folder = None
    if config.is_file():
        saved = json.loads(config.read_text("utf-8")).get("settings", {})
        folder = saved.get("checkpoints", {}).get("folder")
    return CheckpointFolder(checkpoints_path(run, folder, stage), read_only=True)


@dataclass(frozen=True)
class StageResult:
    """The result of a stage.

    Attributes:
      params: of the policy, as used by the model; None if no policy is trained.
      step: the last step (or update, or round).
      first_step: the first step of this process: 0, or that of the checkpoint.
    """

    params: Any
    step: int
    first_step: int


class Stage(Protocol):
    """A stage after fine-tuning: RL, rounds, a reward model, or the game."""

    def begin(self, policy: TrainState) -> Any:
        """The stage's state at step 0; the caller then drops the policy."""

    def run(self, state: Any, session: Session) -> StageResult:
        """Trains from that state, or from where the folder's run stopped."""
