"""Sources of question sets: a file, a prepared TFDS dataset, the hub."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from jaxrl_reason.tasks.hub_files import fetch_hub_file
from jaxrl_reason.tasks.question_rows import (
    PlacedRow,
    QuestionFileError,
    file_rows,
    read_bytes,
)
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.tfds_rows import open_tfds

MakeQuestions = Callable[[Iterable[PlacedRow]], list[Question]]


@dataclass(frozen=True)
class QuestionSet:
    """Questions with a digest.

    Attributes:
      questions: in the order of their ids.
      digest: SHA-256 of their file, or of the questions themselves if there is no file;
        None for generated ones.
      origin: "source" and what names the data there, as JSON values.
    """

    questions: Sequence[Question]
    digest: str | None
    origin: dict[str, Any]


def load_questions(
    data: str | Path, make: MakeQuestions, *, data_dir: str | Path | None = None
) -> QuestionSet:
    """Reads the questions of a benchmark from any source.

    `data` is one of

    - the path of a JSONL or parquet file; a path that exists is always taken as such;
    - `tfds:NAME[/CONFIG][:VERSION]/SPLIT`, a dataset that TFDS has prepared in
      ArrayRecord (or parquet) form. Nothing is downloaded or prepared here;
    - `hub:OWNER/NAME/PATH.jsonl[@REVISION]`, or `.parquet`: a file of a dataset on the
      hub, fetched with huggingface_hub into its cache, which then works without a
      network.

    Args:
      data: the source of the rows.
      make: function from rows to questions, such as `gsm8k_questions`.
      data_dir: the folder of TFDS datasets; None for TFDS_DATA_DIR, or
        ~/tensorflow_datasets if that is not set.

    Returns:
      The questions.

    Raises:
      QuestionFileError: the source is missing or cannot be read, or a row is not of the
      benchmark's form; the message names the place, or what to run.
    """
    name = str(data)
    is_path = isinstance(data, Path) or Path(data).exists()
    from_tfds = name.startswith("tfds:") and not is_path
    if data_dir is not None and not from_tfds:
        raise QuestionFileError(
            f"data_dir must only be given with tfds:..., got {data_dir} with {data}"
        )
    if from_tfds:
        rows, origin = open_tfds(name, data_dir)
        questions = make(rows)
        return QuestionSet(questions, _digest(questions), origin)
    if name.startswith("hub:") and not is_path:
        path, origin = fetch_hub_file(name)
        name = f"hub:{origin['dataset']}/{origin['path']}"
    else:
        path, origin = Path(data), {"source": "file", "path": name}
    held = read_bytes(path)
    questions = make(file_rows(name, held))
    return QuestionSet(questions, hashlib.sha256(held).hexdigest(), origin)


def _digest(questions: Sequence[Question]) -> str:
    lines = (json.dumps(astuple(question)) for question in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
