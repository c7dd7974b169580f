"""Rows of question sets, each with its place, for messages."""

import importlib
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PlacedRow = tuple[str, Row]  # "test.jsonl, line 3" and the fields


class QuestionFileError(ValueError):
    """A source cannot be read as questions; the message names the place in it."""


class NamedPlace:
    """Adds a place to errors in a block.

    Args:
      place: file and line, or dataset and number of the example.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, RecursionError)):
            said = str(error) or type(error).__name__
            raise QuestionFileError(f"{self.place}: {said}") from error


def read_bytes(path: str | Path) -> bytes:
    """The contents of a file.

    Args:
      path: the file.

    Returns:
      Its bytes.

    Raises:
      QuestionFileError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise QuestionFileError(f"{path}: {error.strerror}") from error


def file_rows(name: str, data: bytes) -> Iterator[PlacedRow]:
    """The rows of a file: parquet if its name says so, else JSONL.

    Args:
      name: of the file, for messages.
      data: its contents.

    Yields:
      Each row with its place: lines from 1, rows of parquet from 0.

    Raises:
      QuestionFileError: the file cannot be read, or has no rows.
    """
    rows = _parquet_rows if name.endswith(".parquet") else _jsonl_rows
    return require_rows(name, rows(name, data))


def require_rows(name: str, rows: Iterable[PlacedRow]) -> Iterator[PlacedRow]:
    """The rows unchanged, with an error if there are none.

    Args:
      name: of the source, for the message.
      rows: of the source.

    Yields:
      The rows.

    Raises:
      QuestionFileError: there are none.
    """
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise QuestionFileError(f"{name}: a set of questions must have rows, got none")


def text_field(row: Row, name: str) -> str:
    """A field that must be valid text or a number.

    Args:
      row: has the field.
      name: of the field.

    Returns:
      The text; a number as Python prints it.

    Raises:
      ValueError: it is missing, blank or something else.
    """
    value = row.get(name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {value!r}")
    value.encode()  # half a surrogate pair is a UnicodeEncodeError, a ValueError
    return value


def _jsonl_rows(name: str, data: bytes) -> Iterator[PlacedRow]:
    """The objects of the lines that are not blank."""
    # Not str.splitlines, which also splits at U+2028, which JSON may contain.
    for line, text in enumerate(data.split(b"\n"), start=1):
        if text.strip():
            place = f"{name}, line {line}"
            with NamedPlace(place):
                row = _object(text)
            yield place, row


def _parquet_rows(name: str, data: bytes) -> Iterator[PlacedRow]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise QuestionFileError(
            f"{name}: a parquet file needs `pip install pyarrow`"
        ) from None
    with NamedPlace(name):  # pyarrow's errors of damaged files are ValueErrors
        rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    for number, row in enumerate(rows):
        yield f"{name}, row {number}", row


def _object(text: bytes) -> Row:
    row = json.loads(
        text, object_pairs_hook=_without_repeats, parse_constant=_no_constant
    )
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, got {text[:60]!r}")
    return row


def _without_repeats(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a field must occur once, got {repeated!r} twice")
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"a value must be valid JSON, got {name}")
