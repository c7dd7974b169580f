"""The questions of a run, their source and the form of their answers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrl_reason.tasks.answer_flags import AnswerFlags
from jaxrl_reason.tasks.code_task import CodeFlags

# Generated tasks; others are benchmarks, or the place of questions.
GENERATED = (
    *("countdown", "arithmetic"),
    *("gsm_symbolic", "knights_knaves", "reasoning_gym"),
)
BENCHMARKS = (
    *("gsm8k", "gsm_plus", "math500", "aime", "amc"),
    *("math", "minerva", "olympiad", "code", "multiple_choice"),
)


@dataclass(frozen=True)
class TaskSettings:
    """The task: questions, prompts and the held-out part.

    Attributes:
      source: countdown, arithmetic, gsm_symbolic, knights_knaves or reasoning_gym,
        whose problems are generated;
        gsm8k, gsm_plus, math500, aime, amc, math, minerva, olympiad, code or
        multiple_choice with --task.data; or questions of your own:
        a file (JSON lines or array, CSV, TSV, parquet, also gzipped), a folder of
        `jaxrl-reason data clean`, tfds:NAME[/CONFIG][:VERSION]/SPLIT or
        hub:OWNER/NAME/PATH.jsonl[@REVISION].
      data: questions of a benchmark to train on: a file, folder, tfds:... or hub:....
      heldout: questions to evaluate on, of the same form; by default a part of the
        others.
      heldout_fraction: without --task.heldout: the fraction of the questions that is
        held out; a question and its variants (GSM-Plus) stay together.
      data_dir: folder of TFDS datasets, for tfds:...; TFDS_DATA_DIR if left out.
      question: field of your rows with the question; dots lead into nested fields, as
        in prompt.0.content.
      answer: field with the final answer, text or a number; not used with --reward.
      response: field with a worked response to train on, for --sft.updates and the
        methods sft and sdft.
      text: texts to learn from by predicting every token, in place of responses, for
        --sft.updates and the method sft: a file, folder, tfds:... or hub:....
        --sft.max-response cuts longer ones into pieces.
      text_field: field of their rows with the text.
      chosen: field of the better response, for --offline.pairs.
      rejected: field of the worse response, for --offline.pairs.
      instruction: follows each question; may be empty. By default it is the task's own;
        for your own questions it asks for steps and `#### answer`, and is empty with
        --reward.
      extract: how to find the final answer to your own questions: after the last mark
        (#### or a box), in all boxes together, as a list, or the last number of the
        last line.
      algebra_deadline: seconds for checking one answer by algebra; one that takes
        longer is wrong.
      examples: for arithmetic: number of worked sums before each sum.
      style: for countdown: the style of the prompt for a text model.
      dedup: drop duplicate questions, and all copies whose answers differ.
      decontaminate: drop questions that hold half or more of a held-out one, as runs
        of this many words and numbers (6 is measured, 8 usual); 0 drops none.

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
    text: str | None = None
    text_field: str = "text"
    chosen: str = "chosen"
    rejected: str = "rejected"
    instruction: str | None = None
    extract: Literal["marked", "every_box", "last_number"] = "marked"
    answers: AnswerFlags = field(default_factory=AnswerFlags)
    code: CodeFlags = field(default_factory=CodeFlags)
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
        if not self.algebra_deadline > 0:
            raise ValueError(
                f"task.algebra_deadline must be > 0, got {self.algebra_deadline}"
            )
        for name in ("examples", "decontaminate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    @property
    def is_generated(self) -> bool:
        """Whether its problems are generated."""
        return self.source in GENERATED

    @property
    def short_name(self) -> str:
        """The name for folders and titles."""
        if self.source in (*GENERATED, *BENCHMARKS):
            return self.source
        return Path(self.source.partition("@")[0]).stem or "task"
