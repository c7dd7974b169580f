"""The outputs of a run's process, and the interface of a stage."""

from dataclasses import dataclass
from typing import Any, Protocol

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.profile import StepProfile
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.trackers import Trackers
from jaxrl_reason.sharding.processes import is_main


@dataclass(frozen=True)
class Session:
    """The outputs of this process, and whether it was asked to stop.

    Attributes:
      run: the folder of the run.
      trackers: other destinations of its rows.
      progress: the console output.
      interrupt: whether a stop was requested.
    """

    run: RunFolder
    trackers: Trackers
    progress: TrainingProgress
    interrupt: GracefulInterrupt

    def log(self, name: str = "metrics") -> MetricsLog:
        """The log of a stage: a file, TensorBoard and the trackers."""
        return MetricsLog(self.run.path, name=name, trackers=self.trackers)

    def profile(self, step: int) -> StepProfile | None:
        """Traces that step to the run's folder; 0 for none."""
        traced = step and is_main()
        return StepProfile(step, self.run.path / "profile") if traced else None


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
