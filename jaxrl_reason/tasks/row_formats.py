"""Rows of files, one at a time: JSON lines, a JSON array, CSV, parquet, also gzipped.

A file is never held in memory: what is held is one row, or a few of parquet.
"""

import codecs
import contextlib
import csv
import functools
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    PlacedRow,
    QuestionFileError,
    Row,
)
from jaxrl_reason.text.library_errors import is_of_library

# A file open for reading.
Peekable = io.BufferedReader | gzip.GzipFile
# What to do with a row that cannot be read: its place and what is wrong with it.
OnBad = Callable[[str, str], None]

MAX_ROW_BYTES = 64 * 2**20  # a longer one is damage, or meant to fill the memory
_CHUNK = 2**16
_PARQUET_ROWS, _PARQUET_PART = 1024, 16  # that are read, that are made at once
_GZIP_MAGIC = b"\x1f\x8b"


def file_rows(
    name: str, file: Peekable, on_bad: OnBad | None = None
) -> Iterator[PlacedRow]:
    r"""The rows of a file, in the format that its name says.

    `.parquet`, `.csv` and `.tsv` in any case, with or without `.gz`; any other name
    holds JSON: one array, or one object per line. Gzip is recognised by its content.

    Args:
      name: of the file, for its format and for messages.
      file: open for reading, at its start.
      on_bad: told of a row that cannot be read, which is then left out; None to raise.

    Yields:
      Each row with its place: lines and CSV records from 1, elements of an array and
      rows of parquet from 0.

    Raises:
      QuestionFileError: the file cannot be read, or a row where `on_bad` is None.

    Example:
      >>> held = io.BytesIO(b"question,answer\n1 + 1?,2\n")
      >>> list(file_rows("a.csv", io.BufferedReader(held)))
      [('a.csv, record 1', {'question': '1 + 1?', 'answer': '2'})]
    """
    kind = name.lower().removesuffix(".gz").rpartition(".")[2]
    try:
        zipped = file.peek(2)[:2] == _GZIP_MAGIC
        held: Peekable = gzip.GzipFile(fileobj=file) if zipped else file
        if kind == "parquet":
            yield from _parquet_rows(name, held)
        elif kind in ("csv", "tsv"):
            yield from _csv_rows(name, held, "," if kind == "csv" else "\t", on_bad)
        elif held.peek(_CHUNK).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
            yield from _array_rows(name, held, on_bad)
        else:
            yield from _line_rows(name, held, on_bad)
    except (OSError, EOFError, zlib.error) as error:
        raise QuestionFileError(f"{name}: {error}") from error


def _line_rows(name: str, file: Peekable, on_bad: OnBad | None) -> Iterator[PlacedRow]:
    """The objects of the lines that are not blank."""
    line = 0
    while text := file.readline(MAX_ROW_BYTES + 1):
        line += 1
        place = f"{name}, line {line}"
        if len(text) > MAX_ROW_BYTES:
            raise QuestionFileError(f"{place}: a row must be at most 64 MiB")
        if text.strip():
            row = _read(place, functools.partial(_strict_object, text), on_bad)
            if row is not None:
                yield place, row


def _array_rows(name: str, file: Peekable, on_bad: OnBad | None) -> Iterator[PlacedRow]:
    """The objects of one JSON array, which may fill several lines."""
    text = _JsonText(name, file)
    text.skip("[")
    number = 0
    while text.peek() != "]":
        place = f"{name}, element {number}"
        with NamedPlace(place):
            value = text.element()
        row = _read(place, functools.partial(_strict_object, value.encode()), on_bad)
        if row is not None:
            yield place, row
        number += 1
        if text.peek() != "]":
            with NamedPlace(place):
                text.skip(",")


class _JsonText:
    """JSON text of a file, of which only the element that is read is held."""

    def __init__(self, name: str, file: Peekable) -> None:
        self._name, self._file = name, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._held, self._ended = "", False

    def _more(self) -> None:
        data = self._file.read(max(_CHUNK, len(self._held)))
        self._ended = not data
        with NamedPlace(self._name):
            self._held += self._decode.decode(data, final=self._ended)

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while not (held := self._held.lstrip()) and not self._ended:
            self._more()
        self._held = held
        return held[:1]

    def skip(self, wanted: str) -> None:
        """Leaves out the next character."""
        found = self.peek()
        if found != wanted:
            raise ValueError(f"JSON must go on with {wanted!r}, got {found!r}")
        self._held = self._held[1:]

    def element(self) -> str:
        """The text of the next value."""
        while True:
            try:
                _, end = json.JSONDecoder().raw_decode(self._held)
                # A number may go on in the part that is not read.
                if end < len(self._held) or self._ended:
                    break
            except json.JSONDecodeError:
                if self._ended:
                    raise
            if len(self._held) > MAX_ROW_BYTES:
                raise ValueError("a row must be at most 64 MiB")
            self._more()
        found, self._held = self._held[:end], self._held[end:]
        return found


def _csv_rows(
    name: str, file: Peekable, delimiter: str, on_bad: OnBad | None
) -> Iterator[PlacedRow]:
    """The records of a table whose first line names the fields."""
    # Bytes that are not UTF-8 become halves of characters, which the fields refuse: one
    # row is bad and not the file.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        records = csv.reader(text, delimiter=delimiter, strict=True)
        names = next(records, [])
        with NamedPlace(f"{name}, header"):
            _without_repeats([(field, None) for field in names])
        number = 0
        for record in records:
            if record:
                number += 1
                place = f"{name}, record {number}"
                row = _read(place, functools.partial(_record, names, record), on_bad)
                if row is not None:
                    yield place, row
    except csv.Error as error:
        raise QuestionFileError(f"{name}, line {records.line_num}: {error}") from error
    finally:
        text.detach()  # or it would close the file


def _record(names: list[str], values: list[str]) -> Row:
    if len(names) != len(values):
        raise ValueError(
            f"a record must have the {len(names)} fields of the header, "
            f"got {len(values)}"
        )
    return dict(zip(names, values, strict=True))


def _parquet_rows(name: str, file: Peekable) -> Iterator[PlacedRow]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise QuestionFileError(
            f"{name}: a parquet file needs `pip install pyarrow`"
        ) from None
    with _any_error_in(name):
        columns = parquet.ParquetFile(file).schema
        # Texts that the file has once stay there once: 600 bytes can hold gigabytes.
        texts = [column.path for column in columns if _is_text(column)]
        file.seek(0)
        table = parquet.ParquetFile(file, read_dictionary=texts)
        batches = table.iter_batches(_PARQUET_ROWS)
    number = 0
    while True:
        with _any_error_in(name):
            batch = next(batches, None)
        if batch is None:
            return
        for start in range(0, batch.num_rows, _PARQUET_PART):
            with _any_error_in(name):
                rows: list[Row] = batch.slice(start, _PARQUET_PART).to_pylist()
            for row in rows:
                yield f"{name}, row {number}", row
                number += 1


def _is_text(column: Any) -> bool:
    """Whether a column of parquet holds texts or bytes, and not, say, decimals."""
    kinds = ("STRING", "NONE", "JSON", "ENUM")
    return column.physical_type == "BYTE_ARRAY" and column.logical_type.type in kinds


@contextlib.contextmanager
def _any_error_in(name: str) -> Iterator[None]:
    """Adds a file's name to all errors: pyarrow raises many types for damaged files."""
    try:
        yield
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise QuestionFileError(f"{name}: {type(error).__name__}: {error}") from error


def _read(place: str, make: Callable[[], Row], on_bad: OnBad | None) -> Row | None:
    """A row, or None if it is bad and `on_bad` was told."""
    try:
        return make()
    except (ValueError, RecursionError) as error:
        said = str(error) or type(error).__name__
        if on_bad is None:
            raise QuestionFileError(f"{place}: {said}") from error
        on_bad(place, said)
        return None


def _strict_object(text: bytes) -> Row:
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
