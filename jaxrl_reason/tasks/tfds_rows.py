"""Rows of TFDS datasets on disk: `tfds:NAME[/CONFIG][:VERSION]/SPLIT`, or a folder.

Read as data sources (ArrayRecord, or parquet): TensorFlow is not needed.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    QuestionFileError,
    require_rows,
)
from jaxrl_reason.tasks.reader_threads import check_reader_threads

# A feature that holds further fields as JSON, since features have fixed types.
OTHER_FIELDS = "other_fields_json"

_FORM = re.compile(
    r"tfds:(?P<name>[A-Za-z]\w*)(/(?P<config>[\w+.-]+))?(:(?P<version>[\d.*]+))?"
    r"/(?P<split>[^/]+)",
    re.ASCII,
)


def open_tfds(
    data: str, data_dir: str | Path | None = None
) -> tuple[Iterator[PlacedRow], dict[str, Any]]:
    """Opens a split of a dataset that TFDS has prepared.

    Nothing is downloaded or prepared. Text is returned as `str`, numbers as Python's.

    Args:
      data: `tfds:NAME[/CONFIG][:VERSION]/SPLIT`; by default the newest prepared
        version; any split that TFDS reads, such as `test[:100]`.
      data_dir: the folder of all datasets; None for TFDS_DATA_DIR, or
        ~/tensorflow_datasets if that is not set.

    Returns:
      The rows, each with its number from 0 as its place, and their origin.

    Raises:
      QuestionFileError: `data` has another form, or the dataset is missing, damaged or
      in a form that only TensorFlow reads; the message says what to run.
    """
    asked = _FORM.fullmatch(data)
    if asked is None:
        raise QuestionFileError(
            f"data of TFDS must be tfds:NAME[/CONFIG][:VERSION]/SPLIT, got {data}"
        )
    with _any_error_at(data):
        builder = _builder(asked, data_dir)
    remedy = f"`{_prepare_command(asked, 'FOLDER')}`, and give --data-dir FOLDER"
    return _open_split(data, builder, asked["split"], remedy)


def open_tfds_folder(
    folder: Path, split: str
) -> tuple[Iterator[PlacedRow], dict[str, Any]]:
    """Opens a split of the one dataset in a folder, such as a cleaned one.

    Args:
      folder: with dataset_info.json in it or below it.
      split: any split that TFDS reads, such as `train`.

    Returns:
      The rows and their origin, as of `open_tfds`.

    Raises:
      QuestionFileError: there is no dataset or more than one, or it is damaged.
    """
    import tensorflow_datasets as tfds

    found = sorted(path.parent for path in folder.glob("**/dataset_info.json"))
    if len(found) != 1:
        names = ", ".join(map(str, found[:5])) or "none"
        raise QuestionFileError(
            f"{folder}: a folder must hold one dataset that TFDS has prepared "
            f"(dataset_info.json in or below it), got {names}"
        )
    data = f"{folder}/{split}"
    with _any_error_at(data):
        builder = tfds.builder_from_directory(str(found[0]))
    return _open_split(data, builder, split, "as array_record, and give that")


def _open_split(
    data: str, builder: Any, split: str, remedy: str
) -> tuple[Iterator[PlacedRow], dict[str, Any]]:
    check_reader_threads()
    with _any_error_at(data):
        try:
            examples = builder.as_data_source(split)
        except NotImplementedError:
            raise QuestionFileError(
                f"{data}: {builder.data_dir} is in {builder.info.file_format.value} "
                "form, which only TensorFlow reads; prepare the dataset once more in "
                f"another folder, {remedy}"
            ) from None
        config = builder.builder_config
        origin = {
            "source": "tfds",
            "name": builder.name,
            "config": None if config is None else config.name,
            "version": str(builder.version),
            "split": split,
            "examples": len(examples),
        }
    rows = _rows(data, examples, builder.info.features)
    return require_rows(data, rows), origin


def _builder(asked: re.Match[str], data_dir: str | Path | None) -> Any:
    """The builder of a dataset on disk."""
    # TFDS takes half a second to import, so it is imported only for its datasets.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder
    from tensorflow_datasets.core.utils import file_utils

    name = asked["name"] + (f"/{asked['config']}" if asked["config"] else "")
    chosen = {"version": asked["version"]} if asked["version"] else {}
    if data_dir is not None:
        chosen["data_dir"] = str(Path(data_dir).expanduser())
    try:
        # Not tfds.builder: for a dataset whose code it knows, it requires the version
        # of the code, and without files it requests them over the network.
        return read_only_builder.builder_from_files(name, **chosen)
    except tfds.core.DatasetNotFoundError as error:
        folders = file_utils.list_data_dirs(chosen.get("data_dir"))
        others = _prepared(asked["name"], folders)
        there = f" (but {', '.join(others)})" if others else ""
        raise QuestionFileError(
            f"{asked[0]}: no such dataset is prepared in "
            f"{', '.join(map(str, folders))}{there}, and nothing is downloaded here; "
            f"with a network, run `{_prepare_command(asked, data_dir)}`"
        ) from error


def _prepared(name: str, folders: Sequence[Any]) -> list[str]:
    """Configurations and versions of a dataset that are on disk."""
    return [
        found.parent.relative_to(folder).as_posix()
        for folder in folders
        for found in sorted(Path(folder).glob(f"{name}/**/dataset_info.json"))
    ]


def _prepare_command(asked: re.Match[str], data_dir: str | Path | None) -> str:
    """The command that prepares a dataset in a readable form."""
    name = asked[0].removeprefix("tfds:").rpartition("/")[0]
    folder = "" if data_dir is None else f", data_dir='{data_dir}'"
    return (
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', "
        f"file_format='array_record'{folder}).download_and_prepare()\""
    )


def _rows(data: str, examples: Sequence[Any], features: Any) -> Iterator[PlacedRow]:
    for number in range(len(examples)):
        place = f"{data}, example {number}"
        with _any_error_at(place):
            example = examples[number]
        with NamedPlace(place):
            row = {name: _plain(example[name], features[name]) for name in example}
            if OTHER_FIELDS in row:
                row = json.loads(row.pop(OTHER_FIELDS)) | row
        yield place, row


def _plain(value: Any, feature: Any) -> Any:
    """TFDS values as JSON values; others are unchanged."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, float):
        # The shortest decimal: float32's 0.1 is 0.1, not 0.10000000149.
        return float(str(np.dtype(feature.np_dtype).type(value)))
    return value


@contextlib.contextmanager
def _any_error_at(place: str) -> Iterator[None]:
    """Adds a place to all errors: readers raise many types for damaged files."""
    try:
        yield
    except QuestionFileError:
        raise
    except Exception as error:
        raise QuestionFileError(
            f"{place}: TFDS gave {type(error).__name__}: {error}"
        ) from error
