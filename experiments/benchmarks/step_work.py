"""What a step of the comparisons is: its work, the settings to try, its figures."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from experiments.benchmarks import peers
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.word_arithmetic import INSTRUCTION

QUESTIONS = 64  # go round before they repeat
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


@dataclass(frozen=True)
class WorkOptions:
    """What a step is, for both sides.

    Attributes:
      prompts: P.
      samples: G.
      max_new_tokens: the limit of a response.
      instruction: stands behind each question; it decides how long responses are.
      learning_rate: of AdamW.
    """

    prompts: int = 4
    samples: int = 8
    max_new_tokens: int = 64
    instruction: str = INSTRUCTION
    learning_rate: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")

    @property
    def responses(self) -> int:
        """B = P * G."""
        return self.prompts * self.samples

    def into(self, model: Path, scratch: Path) -> "Work":
        """The work, with the model as a folder that both sides load."""
        folder = peers.hugging_face_folder(model, scratch / "model")
        return Work(**vars(self), folder=folder, scratch=scratch)


@dataclass(frozen=True, kw_only=True)
class Work(WorkOptions):
    """The step with its model's folder and a folder for what the peers write."""

    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Ours:
    """A setting of ours."""

    sampler: str
    remat: str
    row_width: int
    rows: int
    matmuls: str = "float32"
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """For the table."""
        return (
            f"ours, {self.matmuls} products, {self.sampler} sampler, {self.rows} rows "
            f"of {self.row_width}, remat {self.remat}"
        )


@dataclass(frozen=True)
class OurOptions:
    """Our settings to try.

    Attributes:
      samplers: of "plain" and "batch".
      remats: what the backward pass recomputes, of "none", "full" and "dots".
      row_widths: widths of packed rows.
      rows: packed rows of a micro-batch.
      matmuls: types of matrix products, of "float32" and "bfloat16"; all else and the
        weights are float32.
    """

    samplers: tuple[str, ...] = ("plain", "batch")
    remats: tuple[str, ...] = ("none",)
    row_widths: tuple[int, ...] = (320,)
    rows: tuple[int, ...] = (1,)
    matmuls: tuple[str, ...] = ("float32", "bfloat16")

    def settings(self) -> list[Ours]:
        """All of them."""
        chosen = product(
            self.samplers, self.remats, self.row_widths, self.rows, self.matmuls
        )
        return [Ours(*values) for values in chosen]


@dataclass(frozen=True)
class Trl:
    """A setting of trl's."""

    dtype: str
    micro_batch: int
    checkpointing: bool

    @property
    def name(self) -> str:
        """For the table."""
        more = ", checkpointing" if self.checkpointing else ""
        return f"trl, {self.dtype}, {self.micro_batch} at once{more}"


@dataclass(frozen=True)
class Tunix:
    """A setting of tunix's: prompts of a micro-batch, tokens of a packed row or 0."""

    micro_batch: int
    packed: int
    remat: bool
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """For the table."""
        rows = f"packed to {self.packed}" if self.packed else "padded"
        more = ", remat" if self.remat else ""
        return f"tunix, {self.dtype}, {self.micro_batch} prompts at once, {rows}{more}"


Setting = Ours | Trl | Tunix


@dataclass(frozen=True)
class Step:
    """One step's figures; `phases` are seconds."""

    seconds: float
    cpu_seconds: float
    phases: dict[str, float]
    responses: int
    tokens: int
    correct: int


def batches(work: Work) -> Iterator[list[Question]]:
    """The questions of each step, for ever."""
    asked = peers.questions(QUESTIONS)
    for step in count():
        start = step * work.prompts
        yield [asked[(start + i) % QUESTIONS] for i in range(work.prompts)]
