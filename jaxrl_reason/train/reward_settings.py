"""Where the reward functions of a run are called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxrl_reason.sampler.settings import check_temperature

# Rewards of this library that --reward takes by name.
ANSWER, JUDGE = "answer", "judge"


@dataclass(frozen=True)
class RewardSettings:
    """How the functions of --reward are called.

    Attributes:
      where: workers: in worker processes that see no accelerator, each call with a
        deadline and a memory limit; process: in this process, with a deadline alone,
        for a function that needs what only this process has.
      deadline: seconds of one call; left out: 10 in workers, 600 in this process.
      memory_mb: megabytes that one call may take, besides what your file takes when it
        is imported.
      workers: calls at once; 0 for one per core.

    Raises:
      ValueError: a number is out of range.
    """

    where: Literal["workers", "process"] = "workers"
    deadline: float | None = None
    memory_mb: int = 512
    workers: int = 0

    def __post_init__(self) -> None:
        if self.deadline is not None and not self.deadline > 0:
            raise ValueError(f"rewards.deadline must be > 0, got {self.deadline}")
        if self.memory_mb < 1:
            raise ValueError(f"rewards.memory_mb must be >= 1, got {self.memory_mb}")
        if self.workers < 0:
            raise ValueError(f"rewards.workers must be >= 0, got {self.workers}")


@dataclass(frozen=True)
class JudgeSettings:
    """The judge of --reward judge (docs/judge.md).

    Attributes:
      model: a Hugging Face folder, a .gguf file or a hub id; with an endpoint only its
        tokenizer and settings are read.
      endpoint: URL of a server with an OpenAI-style API (vLLM) that serves the model,
        such as http://localhost:8001.
      served_model: that server's name for the model.
      kind: rubric: scores from 1 to 10 by criteria. verify: is the answer equivalent to
        the reference. compare: which of two responses to a question is better.
      rubric: file with a line `name weight: what is judged` for each criterion; the
        answer, the steps and the clarity if left out.
      reference: field of your rows with what is right; task.answer if left out.
      thinking: the judge reasons before its verdict.
      swap: ask every question in both orders.
      temperature: of the judge.
      max_new_tokens: of one answer of the judge, its reasoning included.
      prompt_width: tokens of the longest question to the judge; what is longer gets the
        lowest reward.
      batch_size: questions to the judge at once.
      budget: the largest number of answers of the judge in the run, at which it stops;
        0 for any.

    Raises:
      ValueError: a number is out of range.
    """

    model: str | None = None
    endpoint: str | None = None
    served_model: str = "judge"
    kind: Literal["rubric", "verify", "compare"] = "rubric"
    rubric: Path | None = None
    reference: str | None = None
    thinking: bool = True
    swap: bool = True
    temperature: float = 0.0
    max_new_tokens: int = 512
    prompt_width: int = 2048
    batch_size: int = 16
    budget: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (
            ("max_new_tokens", 1),
            ("prompt_width", 1),
            ("batch_size", 1),
            ("budget", 0),
        ):
            if not getattr(self, name) >= lowest:
                raise ValueError(
                    f"judge.{name} must be >= {lowest}, got {getattr(self, name)}"
                )
        if self.temperature != 0:
            check_temperature("judge.temperature", self.temperature)
        if self.rubric is not None and self.kind != "rubric":
            raise ValueError(
                f"judge.rubric is for judge.kind rubric, got it with {self.kind}"
            )
