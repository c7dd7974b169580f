"""What only all rows together show: copies, contradictions, near duplicates.

Numbers of all rows are in memory (a few hundred bytes a row); their texts are read from
the parts where two rows have to be compared.
"""

import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxrl_reason.data.clean_part import QUOTED, Dropped
from jaxrl_reason.data.comparison_text import (
    TokenHasher,
    comparison_tokens,
    hashed_ngrams,
)
from jaxrl_reason.data.embedding_duplicates import embedding_duplicates
from jaxrl_reason.data.near_duplicates import jaccard, near_duplicates
from jaxrl_reason.tasks.question_rows import Row

_EMBEDDED_AT_ONCE = 1024

# Texts -> one vector of each.
Embed = Callable[[list[str]], np.ndarray]
# (answer, answer) -> whether they are equal.
SameAnswer = Callable[[str, str], bool]


class CleanRows:
    """The rows of all parts, by position.

    Args:
      folder: of the parts.
      names: of the parts, in order.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, list(names)
        held: dict[str, list[np.ndarray]] = {}
        self._offsets = []
        for name in names:
            with np.load(folder / f"{name}.npz") as arrays:
                self._offsets.append(arrays["offsets"])
                for key in arrays.files:
                    held.setdefault(key, []).append(arrays[key])
        del held["offsets"]
        self.arrays = {key: np.concatenate(parts) for key, parts in held.items()}
        sizes = [len(offsets) - 1 for offsets in self._offsets]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])  # [parts + 1]
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, position: int) -> Row:
        part = int(np.searchsorted(self.starts, position, side="right")) - 1
        if part not in self._maps:
            with open(self.folder / f"{self.names[part]}.rows.jsonl", "rb") as file:
                self._maps[part] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offsets, i = self._offsets[part], position - int(self.starts[part])
        row: Row = json.loads(self._maps[part][offsets[i] : offsets[i + 1]])
        return row

    def of_part(self, part: int) -> Iterator[tuple[int, Row]]:
        """The rows of a part with their positions, read from front to back."""
        path = self.folder / f"{self.names[part]}.rows.jsonl"
        with open(path, "rb") as file:
            for position, line in enumerate(file, start=int(self.starts[part])):
                yield position, json.loads(line)


class Selection:
    """Which rows stay, and why the others go.

    Attributes:
      kept: [R] bool.

    Args:
      rows: of all parts.
    """

    def __init__(self, rows: CleanRows) -> None:
        self._rows = rows
        self.kept = np.ones(len(rows), bool)
        self._dropped: dict[int, tuple[str, int | None, str]] = {}

    def drop(
        self, position: int, reason: str, other: int | None = None, detail: str = ""
    ) -> None:
        """Leaves out a row.

        Args:
          position: of the row.
          reason: a short name.
          other: position of the row that it repeats or contradicts.
          detail: what about the row is so.
        """
        self.kept[position] = False
        self._dropped[position] = (reason, other, detail)

    def line(self, position: int, row: Row) -> Dropped:
        """Why a row is left out.

        Args:
          position: of the row.
          row: itself.

        Returns:
          What dropped.jsonl says of it.
        """
        reason, other, detail = self._dropped[position]
        place = "" if other is None else self._rows[other]["place"]
        return Dropped(row["place"], reason, detail, row["question"][:QUOTED], place)

    def counts(self) -> dict[str, int]:
        """How many rows went, by reason."""
        found: dict[str, int] = {}
        for reason, _, _ in self._dropped.values():
            found[reason] = found.get(reason, 0) + 1
        return found


def drop_equal(
    selection: Selection, rows: CleanRows, same_answer: SameAnswer, golds: bool
) -> None:
    """Leaves one of equal prompts, and none whose answers contradict each other.

    Prompts are equal without case and white space.

    Args:
      selection: changed.
      rows: of all parts.
      same_answer: decides on two answers of different form.
      golds: whether answers matter.
    """
    keys = rows.arrays["key"]
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    new = np.ones(len(keys), bool)
    new[1:] = np.any(keys[order[1:]] != keys[order[:-1]], axis=1)
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(keys)))
    answers = rows.arrays["answer"]
    for start, size in zip(
        starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True
    ):
        group = order[start : start + size].tolist()
        spellings = {int(answers[i]): i for i in reversed(group)}
        first, *others = sorted(spellings.values())
        gold = rows[first]["answer"] if others else ""
        if golds and any(not same_answer(gold, rows[i]["answer"]) for i in others):
            for i in group:
                other = next(j for j in group if answers[j] != answers[i])
                selection.drop(i, "conflicting", other)
        else:
            for i in group[1:]:
                selection.drop(i, "duplicate", group[0])


def drop_near(
    selection: Selection, rows: CleanRows, *, n: int, threshold: float
) -> None:
    """Leaves out prompts with most n-grams of an earlier one, and its answer.

    Args:
      selection: changed.
      rows: of all parts.
      n: words per n-gram.
      threshold: smallest Jaccard similarity.
    """
    positions = np.flatnonzero(selection.kept)
    hasher = TokenHasher()

    @lru_cache(2**14)
    def grams(i: int) -> np.ndarray:
        tokens = comparison_tokens(rows[int(positions[i])]["question"])
        return hashed_ngrams(hasher([tokens]), n).hashes

    def similar(later: int, earlier: int) -> bool:
        return jaccard(grams(later), grams(earlier)) >= threshold

    found = near_duplicates(rows.arrays["bands"][positions], similar)
    for later, earlier in found.items():
        selection.drop(int(positions[later]), "near_duplicate", int(positions[earlier]))


def drop_same_meaning(
    selection: Selection, rows: CleanRows, embed: Embed, threshold: float
) -> None:
    """Leaves out prompts whose embedding is close to that of an earlier one.

    Args:
      selection: changed.
      rows: of all parts.
      embed: the embedding.
      threshold: smallest cosine.

    Raises:
      ValueError: the function does not return one vector per text.
    """
    positions = np.flatnonzero(selection.kept)
    blocks = []
    for begin in range(0, len(positions), _EMBEDDED_AT_ONCE):
        block = positions[begin : begin + _EMBEDDED_AT_ONCE].tolist()
        vectors = np.asarray(embed([rows[i]["question"] for i in block]), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(block):
            raise ValueError(
                "duplicates.embed must return one vector per text, an array of shape "
                f"({len(block)}, D), got {vectors.shape}"
            )
        blocks.append(vectors)
    if not blocks:
        return
    found = embedding_duplicates(np.concatenate(blocks), threshold)
    for later, earlier in found.items():
        selection.drop(int(positions[later]), "same_meaning", int(positions[earlier]))
