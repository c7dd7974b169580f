"""Which questions a run asks, where they come from and how they are answered."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

# Made by a program; all else is a benchmark's form of questions, or where they are.
GENERATED = ("countdown", "arithmetic")
BENCHMARKS = ("gsm8k", "gsm_plus", "math500", "aime", "amc")


@dataclass(frozen=True)
class TaskSettings:
    """The task: questions, how they are asked, which are held out.

    Attributes:
      source: countdown or arithmetic, whose problems are made here; gsm8k,
        gsm_plus, math500, aime or amc with --task.data; or questions of your own:
        a JSONL or parquet file, tfds:NAME[/CONFIG][:VERSION]/SPLIT or
        hub:OWNER/NAME/PATH.jsonl[@REVISION].
      data: questions of a benchmark to train on: a file, tfds:... or hub:....
      heldout: questions to measure on, of the same form; without it a part of the
        others.
      heldout_fraction: the part of the questions that is held out where there is
        no --task.heldout.
      data_dir: folder of TFDS's datasets, for tfds:...; TFDS_DATA_DIR if left
        out.
      question: field of your rows that is asked.
      answer: field with the final answer, text or a number; not read with
        --reward.
      response: field with a worked response to learn from: for --sft.updates and
        method sft.
      chosen: field of the better response, for --offline.pairs.
      rejected: field of the worse response, for --offline.pairs.
      instruction: stands behind each question; may be empty. Left out, it is the
        task's own: your own questions ask for steps and `#### answer`, with
        --reward for nothing.
      extract: how the final answer to your own questions is found: behind the
        last mark (#### or a box), or the last number of the last line.
      algebra: let math-verify (extra math) decide by algebra on LaTeX answers of
        unequal form, in training as in the evaluations; else they are right only in
        the same normal form.
      algebra_deadline: seconds for one such answer; one that takes longer counts as a
        grader that failed.
      examples: of arithmetic: sums that stand worked out before each sum.
      style: of countdown: how a model that reads text is asked.
      dedup: drop further copies of a question, and all copies whose answers
        differ.
      decontaminate: drop questions that share so many words in a row with a held-
        out one (8 is usual); 0 drops none.

    Example:
      >>> TaskSettings("my/questions.jsonl").short_name
      'questions'
    """

    source: Annotated[str, tyro.conf.arg(name="", metavar="NAME|FILE|tfds:...|hub:...")]
    data: str | None = None
    heldout: str | None = None
    heldout_fraction: float = 0.1
    data_dir: Path | None = None
    question: str = "question"
    answer: str = "answer"
    response: str | None = None
    chosen: str = "chosen"
    rejected: str = "rejected"
    instruction: str | None = None
    extract: Literal["marked", "last_number"] = "marked"
    algebra: bool = False
    algebra_deadline: float = 10.0
    examples: int = 0
    style: Literal["base", "qwen-instruct"] = "base"
    dedup: bool = False
    decontaminate: int = 0

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("task must be a name or a file, got ''")
        if self.source in BENCHMARKS and self.data is None:
            raise ValueError(f"data must be given for task {self.source}, got none")
        if self.source not in BENCHMARKS and self.data is not None:
            raise ValueError(
                f"data must only be given for a benchmark ({', '.join(BENCHMARKS)}), "
                f"got it for {self.source}"
            )
        if not 0 < self.heldout_fraction < 1:
            raise ValueError(
                f"heldout_fraction must be > 0 and < 1, got {self.heldout_fraction}"
            )
        if self.algebra and self.is_generated:
            raise ValueError(
                f"task.algebra is for questions with answers in LaTeX, got it for "
                f"{self.source}"
            )
        if not self.algebra_deadline > 0:
            raise ValueError(
                f"task.algebra_deadline must be > 0, got {self.algebra_deadline}"
            )
        for name in ("examples", "decontaminate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    @property
    def is_generated(self) -> bool:
        """Whether its problems are made by a program."""
        return self.source in GENERATED

    @property
    def short_name(self) -> str:
        """For folders and titles."""
        if self.source in (*GENERATED, *BENCHMARKS):
            return self.source
        return Path(self.source.partition("@")[0]).stem or "task"
