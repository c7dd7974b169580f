"""Where a process of a run writes, and what a stage of a run is."""

from dataclasses import dataclass
from typing import Any, Protocol

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.profile import StepProfile
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder
from jaxrl_reason.runs.trackers import Trackers


@dataclass(frozen=True)
class Session:
    """Where this process writes, what it shows, and whether it was asked to stop.

    Attributes:
      run: the folder.
      trackers: where else its rows go.
      progress: what is shown.
      interrupt: whether somebody asked to stop.
    """

    run: RunFolder
    trackers: Trackers
    progress: TrainingProgress
    interrupt: GracefulInterrupt

    def log(self, name: str = "metrics") -> MetricsLog:
        """The rows of a stage: a file, TensorBoard and the trackers."""
        return MetricsLog(self.run.path, name=name, trackers=self.trackers)

    def profile(self, step: int) -> StepProfile | None:
        """Traces that step into the run's folder; 0 is none."""
        return StepProfile(step, self.run.path / "profile") if step else None


@dataclass(frozen=True)
class StageResult:
    """What a stage came to.

    Attributes:
      params: of the policy, as the model is applied with; None where no policy is
        trained.
      step: the last step (or update, or round).
      first_step: that this process began with: 0, or of the checkpoint.
    """

    params: Any
    step: int
    first_step: int


class Stage(Protocol):
    """What trains the model after fine-tuning: RL, rounds, a scorer, the game."""

    def begin(self, policy: TrainState) -> Any:
        """The stage's state of step 0; the policy is let go after that."""

    def run(self, state: Any, session: Session) -> StageResult:
        """Trains from that state, or from where the folder's run stopped."""
