"""One part of a raw set: every check of a row that needs no other row.

A part is a list of rows in the order of their sources. It becomes three files: the rows
that are left, numbers of each (keys, buckets, lengths), and the rows that are dropped.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl_reason.data.clean_benchmark import BenchmarkTexts
from jaxrl_reason.data.clean_settings import CleanSettings
from jaxrl_reason.data.comparison_text import (
    TokenHasher,
    comparison_tokens,
    hashed_ngrams,
    text_key,
)
from jaxrl_reason.data.decontamination import BenchmarkIndex, Match
from jaxrl_reason.data.hygiene import digit_free_key, normalized_words
from jaxrl_reason.data.near_duplicates import BANDS, band_keys, minhash
from jaxrl_reason.data.question_filters import FILTERS
from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.final_answer import RIGHT, grade_final_answer
from jaxrl_reason.tasks.question_rows import Row, field_of, text_field

# Reasons of rows that are not of the form: too many of them stop the command.
BAD = ("unreadable", "field")
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
QUOTED = 200  # characters of a question that a report quotes


class RawRow(NamedTuple):
    """A row as its source gives it.

    Attributes:
      place: file and line, or dataset and number.
      row: its fields; None if it could not be read.
      error: why not.
    """

    place: str
    row: Row | None
    error: str = ""


@dataclass(frozen=True)
class Dropped:
    """A row that was left out.

    Attributes:
      place: of the row.
      reason: a short name.
      detail: what about the row is so.
      question: its beginning, if it has one.
      other: what it repeats or contradicts: the place of a row, or a benchmark's.
    """

    place: str
    reason: str
    detail: str
    question: str = ""
    other: str = ""

    def line(self) -> str:
        """It as a JSON line."""
        return json.dumps(vars(self)) + "\n"


class PartCleaner:
    """Cleans parts by the checks that need no other row.

    Args:
      settings: what a row has to be.
      benchmark: questions that must not be trained on.
    """

    def __init__(self, settings: CleanSettings, benchmark: BenchmarkTexts) -> None:
        self._settings, self._benchmark = settings, benchmark
        self._hasher = TokenHasher()
        rule = settings.decontamination
        self._index = BenchmarkIndex(benchmark.texts, n=rule.n, coverage=rule.coverage)
        keys = map(digit_free_key, benchmark.texts if rule.digit_free else ())
        self._digit_free = {key: item for item, key in enumerate(keys) if key}

    def __call__(
        self, rows: Sequence[RawRow], folder: Path, name: str
    ) -> dict[str, int]:
        """Cleans a part and writes its files; the last of them says that it is done.

        Args:
          rows: of the part.
          folder: for the files.
          name: of the part.

        Returns:
          How many rows are left ("kept") and were dropped, by reason.
        """
        kept, dropped = [], []
        for raw in rows:
            try:
                kept.append(self._checked(raw))
            except _Drop as drop:
                dropped.append(drop.dropped)
        tokens = [comparison_tokens(row["question"]) for row in kept]
        hashed = self._hasher(tokens)
        clean = []
        for i, match in enumerate(self._index.matches_tokens(hashed)):
            found = self._contamination(kept[i], match)
            if found is None:
                clean.append(i)
            else:
                dropped.append(found)
        arrays = self._numbers([kept[i] for i in clean], [tokens[i] for i in clean])
        counts = {"kept": len(clean)} | Counter(row.reason for row in dropped)
        write_part(folder, name, [kept[i] for i in clean], arrays, dropped, counts)
        return counts

    def _checked(self, raw: RawRow) -> Row:
        """The row as it is kept, or a `_Drop`."""
        settings, row = self._settings, raw.row
        if row is None:
            raise _Drop(raw.place, "unreadable", raw.error)
        try:
            question = text_field(row, settings.question)
            answer, solution = _answer(row, settings)
        except ValueError as error:
            raise _Drop(raw.place, "field", str(error)) from None
        for name in settings.drop:
            if FILTERS[name](question, answer, row):
                raise _Drop(raw.place, name, "", question)
        words = len(comparison_tokens(question)) if settings.max_words else 0
        if words > settings.max_words > 0:
            raise _Drop(raw.place, "long", f"{words} words", question)
        reason = _own_grade(answer)[0] if settings.golds else None
        if reason is not None:
            raise _Drop(raw.place, "gold", reason, question)
        try:
            other = _other_fields(row, settings, solution)
        except (ValueError, TypeError) as error:
            said = f"a row must be of values that JSON holds: {error}"
            raise _Drop(raw.place, "field", said, question) from None
        return {
            "place": raw.place,
            "question": question,
            "answer": answer,
            "other": other,
        }

    def _contamination(self, row: Row, match: Match | None) -> Dropped | None:
        if match is not None:
            item, detail = match.item, f"{match.coverage:.0%} of it"
        else:
            key = digit_free_key(row["question"]) if self._digit_free else ""
            if key not in self._digit_free:
                return None
            item, detail = self._digit_free[key], "all but digits and signs"
        name, quoted = self._benchmark.names[item], row["question"][:QUOTED]
        return Dropped(row["place"], "contaminated", detail, quoted, name)

    def _numbers(
        self, rows: Sequence[Row], tokens: Sequence[list[str]]
    ) -> dict[str, np.ndarray]:
        """What the comparison with other rows needs."""
        keys = [text_key(normalized_words(row["question"])) for row in rows]
        answers = [text_key([_own_grade(row["answer"])[1]])[:8] for row in rows]
        bands = np.zeros((len(rows), BANDS), np.uint64)
        duplicates = self._settings.duplicates
        if duplicates.near:
            grams = hashed_ngrams(self._hasher(tokens), duplicates.n)
            bands = band_keys(minhash(grams))
        answer = np.frombuffer(b"".join(answers), np.uint64)
        return {
            "key": np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2),
            "answer": answer,
            # Near duplicates have the same answer.
            "bands": bands ^ answer[:, None],
            "words": np.array([len(x) for x in tokens], np.int32),
            "answer_length": np.array([len(row["answer"]) for row in rows], np.int32),
        }


class _Drop(Exception):
    """The row is left out."""

    def __init__(
        self, place: str, reason: str, detail: str, question: str = ""
    ) -> None:
        super().__init__(reason)
        self.dropped = Dropped(place, reason, detail[:500], question[:QUOTED])


def _answer(row: Row, settings: CleanSettings) -> tuple[str, str | None]:
    """The final answer, and the worked solution if the field holds one."""
    if not settings.golds:
        try:
            found = field_of(row, settings.answer)
        except ValueError:
            return "", None
        if found is None or found == "":
            return "", None
    text = text_field(row, settings.answer)
    marked = marked_answer(text) if "####" in text or "\\boxed" in text else None
    return (text.strip(), None) if marked is None else (marked, text)


def _other_fields(row: Row, settings: CleanSettings, solution: str | None) -> str:
    """The rest of the row as JSON."""
    names = (settings.question, settings.answer)
    used = (*names, "question", "answer")
    other = {name: value for name, value in row.items() if name not in used}
    for name in {"question", "answer"} & row.keys() - {*names}:
        other[f"raw_{name}"] = row[name]
    if solution is not None:
        other.setdefault("solution", solution)
    return json.dumps(other, allow_nan=False, default=_as_text)


def _as_text(value: Any) -> str:
    """Dates and decimals of parquet."""
    if isinstance(value, (bytes, bytearray)):
        raise TypeError("a field holds bytes")
    return str(value)


@lru_cache(2**16)
def _own_grade(answer: str) -> tuple[str | None, str]:
    """Why an answer is not right by its own grade, and its usual spelling."""
    if _INTEGER.fullmatch(answer):
        return None, answer
    grade = grade_final_answer(answer, answer, extract=str, reasoning=False)
    reason = None if grade.outcome == RIGHT else grade.reason
    return reason, " ".join((grade.parsed or answer).split())


def write_part(
    folder: Path,
    name: str,
    rows: Sequence[Row],
    arrays: dict[str, np.ndarray],
    dropped: Sequence[Dropped],
    counts: Mapping[str, int],
) -> None:
    """Writes the files of a part; the one with the counts comes last.

    Args:
      folder: for the files.
      name: of the part.
      rows: that are left.
      arrays: one entry per row.
      dropped: the others.
      counts: of both.
    """
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines])])
    lost = "".join(row.line() for row in dropped).encode()
    _replace(folder / f"{name}.rows.jsonl", b"".join(lines))
    _replace(folder / f"{name}.dropped.jsonl", lost)
    held = folder / f".{name}.tmp.npz"
    np.savez(held, offsets=offsets.astype(np.int64), **arrays)  # type: ignore[arg-type]
    os.replace(held, folder / f"{name}.npz")
    _replace(folder / f"{name}.json", json.dumps(counts).encode())


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
