"""Settings of `jaxrl-reason data clean`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

FilterName = Literal["url", "image", "figure", "proof", "choices", "yes_no"]


@dataclass(frozen=True)
class DecontaminationSettings:
    """When a prompt holds a question of `against`.

    Attributes:
      n: words and numbers per n-gram.
      coverage: the part of a benchmark's question that shared n-grams must cover; 0 for
        the published rules, where one shared n-gram is enough.
      digit_free: also drop prompts that equal a benchmark's question except for digits
        and signs, as Light-R1 does; short templates collide.
      question: field of the benchmarks with the question; by default the first of
        problem, question and prompt.
    """

    n: int = 6
    coverage: float = 0.5
    digit_free: bool = False
    question: str | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"decontamination.n must be >= 1, got {self.n}")
        if not 0 <= self.coverage <= 1:
            raise ValueError(
                f"decontamination.coverage must be in [0, 1], got {self.coverage}"
            )


@dataclass(frozen=True)
class DuplicateSettings:
    """When two prompts are one. Equal prompts always are.

    Attributes:
      near: smallest Jaccard similarity of word n-grams at which a prompt with the same
        answer is a near duplicate; 0 to keep them.
      n: words and numbers per n-gram.
      embed: my_file.py:my_function or package.module:function, which returns one
        vector for each of a list of prompts; a prompt that is close to an earlier one
        is dropped.
      cosine: smallest cosine of two vectors at which they are close.
    """

    near: float = 0.7
    n: int = 5
    embed: str | None = None
    cosine: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.near <= 1:
            raise ValueError(f"duplicates.near must be in [0, 1], got {self.near}")
        if self.n < 1:
            raise ValueError(f"duplicates.n must be >= 1, got {self.n}")
        if not 0 < self.cosine <= 1:
            raise ValueError(f"duplicates.cosine must be in (0, 1], got {self.cosine}")


@dataclass(frozen=True)
class PassRateSettings:
    """How often a model solves each question, and which rates are kept.

    Attributes:
      model: a Hugging Face folder, a .gguf file or a hub id; without one nothing is
        sampled.
      samples: responses per question.
      low: smallest rate kept.
      high: largest rate kept.
      mixed: keep questions with some right and some wrong responses, whatever the rate.
      instruction: follows each question.
      temperature: of the responses.
      top_p: of the responses.
      max_new_tokens: the longest response; a truncated one is wrong.
      batch_size: responses sampled at once.
      seed: for sampling.
      dtype: of activations and products.
    """

    model: str | None = None
    samples: int = 8
    low: float = 0.0
    high: float = 1.0
    mixed: bool = False
    instruction: str = (
        "Solve the problem step by step. On the last line write #### and then the "
        "final answer alone."
    )
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 1024
    batch_size: int = 64
    seed: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"pass_rates.{name} must be >= 1, got {getattr(self, name)}"
                )
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(
                "pass_rates must have 0 <= low <= high <= 1, "
                f"got {self.low} and {self.high}"
            )
        if self.model is None and (self.low > 0 or self.high < 1 or self.mixed):
            raise ValueError("a filter of pass_rates needs pass_rates.model, got none")


@dataclass(frozen=True)
class CleanSettings:
    """What to clean, and how.

    Attributes:
      raw: sources of rows: files (JSON lines or array, CSV, TSV, parquet, also
        gzipped), folders, tfds:NAME/SPLIT or hub:OWNER/NAME/PATH.
      out: folder of the result; the same command continues an interrupted one.
      against: benchmarks that must not be trained on: sources like those of raw.
      question: field with the question; dots lead into nested fields, as in
        prompt.0.content.
      answer: field with the final answer, or with a worked solution that ends in it
        (#### 72 or a box).
      golds: drop rows whose answer cannot be graded, or is not right by its own grade.
        --no-golds also keeps rows without an answer, for a reward that needs none.
      drop: kinds of questions to leave out.
      max_words: longest question, in words and numbers; 0 for any.
      max_bad: the part of the rows that may be unreadable or lack a field; more stop
        the command.
      data_dir: folder of TFDS datasets, for tfds:....
      jsonl: also write the rows to questions.jsonl.
      workers: processes; 0 for the number of cores.
    """

    raw: Annotated[tuple[str, ...], tyro.conf.Positional]
    out: Path
    against: tuple[str, ...] = ()
    question: str = "question"
    answer: str = "answer"
    golds: bool = True
    drop: tuple[FilterName, ...] = ("url", "image")
    max_words: int = 0
    max_bad: float = 0.05
    data_dir: Path | None = None
    jsonl: bool = False
    workers: int = 0
    decontamination: DecontaminationSettings = field(
        default_factory=DecontaminationSettings
    )
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    pass_rates: PassRateSettings = field(default_factory=PassRateSettings)

    def __post_init__(self) -> None:
        if not self.raw:
            raise ValueError("raw must name a source, got none")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad must be in [0, 1], got {self.max_bad}")
        for name in ("max_words", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
