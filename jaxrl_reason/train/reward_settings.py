"""Where the reward functions of a run are called."""

from dataclasses import dataclass
from typing import Literal

# The reward of this library that --reward takes by name.
ANSWER = "answer"


@dataclass(frozen=True)
class RewardSettings:
    """How the functions of --reward are called.

    Attributes:
      where: workers: in worker processes that see no accelerator, each call with a
        deadline and a memory limit; process: in this process, without limits, for a
        function that needs what only this process has.
      deadline: seconds of one call.
      memory_mb: megabytes that one call may take, besides what your file takes when it
        is imported.
      workers: calls at once; 0 for one per core.

    Raises:
      ValueError: a number is out of range.
    """

    where: Literal["workers", "process"] = "workers"
    deadline: float = 10.0
    memory_mb: int = 512
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.deadline > 0:
            raise ValueError(f"rewards.deadline must be > 0, got {self.deadline}")
        if self.memory_mb < 1:
            raise ValueError(f"rewards.memory_mb must be >= 1, got {self.memory_mb}")
        if self.workers < 0:
            raise ValueError(f"rewards.workers must be >= 0, got {self.workers}")
