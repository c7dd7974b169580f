"""Sources of question sets: a file, a folder, a prepared TFDS dataset, the hub."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import file_sha256
from jaxrl_reason.tasks.hub_files import fetch_hub_file
from jaxrl_reason.tasks.question_rows import (
    PlacedRow,
    QuestionFileError,
    require_rows,
)
from jaxrl_reason.tasks.questions import Question
from jaxrl_reason.tasks.row_formats import OnBad, file_rows
from jaxrl_reason.tasks.tfds_rows import open_tfds, open_tfds_folder

_DATASET = "**/dataset_info.json"
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


@dataclass(frozen=True)
class RowSource:
    """Rows to read once, from front to back.

    Attributes:
      rows: each with its place.
      digest: SHA-256 of their file; None if they are in several.
      origin: "source" and what names the data there, as JSON values.
    """

    rows: Iterator[PlacedRow]
    digest: str | None
    origin: dict[str, Any]


def open_rows(
    data: str | Path,
    *,
    data_dir: str | Path | None = None,
    on_bad: OnBad | None = None,
) -> RowSource:
    """Opens any source of rows; they are read one by one.

    `data` is one of

    - the path of a file of JSON lines, a JSON array, CSV, TSV or parquet, also gzipped;
      a path that exists is always taken as such;
    - `FOLDER` or `FOLDER/SPLIT`, what `jaxrl-reason data clean` writes or another
      folder with one dataset that TFDS has prepared; the split is `train` if not given;
    - `tfds:NAME[/CONFIG][:VERSION]/SPLIT`, a dataset that TFDS has prepared in
      ArrayRecord (or parquet) form. Nothing is downloaded or prepared here;
    - `hub:OWNER/NAME/PATH[@REVISION]`: a file of a dataset on the hub, fetched with
      huggingface_hub into its cache, which then works without a network.

    Args:
      data: the source of the rows.
      data_dir: the folder of TFDS datasets; None for TFDS_DATA_DIR, or
        ~/tensorflow_datasets if that is not set.
      on_bad: told of a row of a file that cannot be read, which is then left out; None
        to raise.

    Returns:
      The rows.

    Raises:
      QuestionFileError: the source is missing or cannot be read, or has no rows; the
      message names the place, or what to run.
    """
    name, path = str(data), Path(data)
    is_path = isinstance(data, Path) or path.exists()
    from_tfds = name.startswith("tfds:") and not is_path
    if data_dir is not None and not from_tfds:
        raise QuestionFileError(
            f"data_dir must only be given with tfds:..., got {data_dir} with {data}"
        )
    if from_tfds:
        return _of_dataset(*open_tfds(name, data_dir))
    if path.is_dir():
        return _of_dataset(*open_tfds_folder(path, "train"))
    if not is_path and _names_split(path) and any(path.parent.glob(_DATASET)):
        return _of_dataset(*open_tfds_folder(path.parent, path.name))
    if name.startswith("hub:") and not is_path:
        path, origin = fetch_hub_file(name)
        name = f"hub:{origin['dataset']}/{origin['path']}"
    else:
        origin = {"source": "file", "path": name}
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise QuestionFileError(f"{path}: {error.strerror}") from error
    return RowSource(_of_file(name, path, on_bad), digest, origin)


def tfds_folder(data: str, data_dir: Path | None) -> Path | None:
    """The `data_dir` of one of several sources, some of which are not TFDS datasets.

    Args:
      data: the source.
      data_dir: the folder of TFDS datasets, which the others do not take.

    Returns:
      The folder for tfds:..., otherwise None.

    Example:
      >>> tfds_folder("my.jsonl", Path("tfds")) is None
      True
    """
    return data_dir if data.startswith("tfds:") else None


def load_questions(
    data: str | Path, make: MakeQuestions, *, data_dir: str | Path | None = None
) -> QuestionSet:
    """Reads the questions of a benchmark from any source of `open_rows`.

    Args:
      data: the source of the rows.
      make: function from rows to questions, such as `gsm8k_questions`.
      data_dir: the folder of TFDS datasets.

    Returns:
      The questions.

    Raises:
      QuestionFileError: as `open_rows`, or a row is not of the benchmark's form.
    """
    source = open_rows(data, data_dir=data_dir)
    questions = make(require_rows(str(data), source.rows))
    digest = source.digest or _digest(questions)
    return QuestionSet(questions, digest, source.origin)


def _names_split(path: Path) -> bool:
    """Whether a path that does not exist may be FOLDER/SPLIT, not an absent file."""
    return path.parent.name != "" and path.suffix == "" and path.parent.is_dir()


def _of_file(name: str, path: Path, on_bad: OnBad | None) -> Iterator[PlacedRow]:
    with open(path, "rb") as file:
        yield from file_rows(name, file, on_bad)


def _of_dataset(rows: Iterator[PlacedRow], origin: dict[str, Any]) -> RowSource:
    return RowSource(rows, None, origin)


def _digest(questions: Sequence[Question]) -> str:
    lines = (json.dumps(astuple(question)) for question in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
