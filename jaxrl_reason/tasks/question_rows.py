"""Rows of question sets, each with its place, for messages."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jaxrl_reason.runs.run_folder import to_plain

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


def rows_digest(rows: Iterable[PlacedRow]) -> str:
    """SHA-256 of what is in the rows, in their order, wherever they are from.

    Args:
      rows: of any source.

    Returns:
      In hexadecimal.

    Example:
      >>> here, there = [("a.jsonl, line 1", {"n": 1})], [("b.csv, line 2", {"n": 1})]
      >>> rows_digest(here) == rows_digest(there)
      True
    """
    digest = hashlib.sha256()
    for _, row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=to_plain).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def field_of(row: Row, name: str) -> Any:
    """A field of a row; dots lead into fields of fields and elements of lists.

    Args:
      row: of any source.
      name: of the field, such as `answer`, or the way to it, such as
        `reward_model.ground_truth` or `prompt.0.content`.

    Returns:
      The value.

    Raises:
      ValueError: there is no such field; the message lists those that there are.

    Example:
      >>> field_of({"prompt": [{"content": "1 + 1?"}]}, "prompt.0.content")
      '1 + 1?'
    """
    if name in row:
        return row[name]
    found: Any = row
    for part in name.split("."):
        if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, dict) and part in found:
            found = found[part]
        else:
            there = ", ".join(map(repr, row)) or "none"
            raise ValueError(f"{name} must be a field, got the fields {there}")
    return found


def first_name(row: Row, names: Sequence[str]) -> str:
    """The first of several names under which the row has anything.

    Args:
      row: of any source.
      names: under which sets hold the same thing.

    Returns:
      The name; the first of all, for a message, if the row has nothing under any.

    Example:
      >>> first_name({"question": None, "problem": "1 + 1?"}, ("question", "problem"))
      'problem'
    """
    empty: tuple[Any, ...] = (None, "", [], {})
    return next((name for name in names if row.get(name) not in empty), names[0])


def text_field(row: Row, name: str) -> str:
    """A field that must be valid text or a number.

    Args:
      row: has the field.
      name: of the field, as of `field_of`.

    Returns:
      The text; a number as Python prints it.

    Raises:
      ValueError: it is missing, blank or something else.
    """
    value = field_of(row, name)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {repr(value)[:200]}")
    value.encode()  # half a surrogate pair is a UnicodeEncodeError, a ValueError
    return value
