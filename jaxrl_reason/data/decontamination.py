"""Training prompts that hold a benchmark's question, whole or reworded.

An n-gram rule alone flags every prompt with a common phrase ("where m and n are
relatively prime positive integers"). Here the n-grams that a prompt shares with one
question must also make up a part of that question.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl_reason.data.comparison_text import (
    HashedTexts,
    TokenHasher,
    comparison_tokens,
    hashed_ngrams,
    text_key,
)

# An n-gram at more places than this is a phrase of all questions and tells nothing.
_COMMON = 64
# A question of fewer tokens ("1 + 1") is in too many texts: only equal ones count.
_SHORTEST_INSIDE = 4


class Match(NamedTuple):
    """The question of a benchmark that a prompt holds.

    Attributes:
      item: its number in the benchmark.
      coverage: the part of its tokens that is in n-grams of the prompt.
    """

    item: int
    coverage: float


class BenchmarkIndex:
    """Finds the questions of a benchmark in prompts.

    A prompt matches a question if the n-grams that they share cover at least `coverage`
    of the question's tokens. A question of fewer than n tokens matches where it stands
    in the prompt as a whole. Texts are compared as `comparison_tokens`.

    Measured on GSM8K's test set with n = 6 and half of a question: of the questions
    that GSM-Plus (arXiv 2402.19255) makes of it, 99.7% of those without a condition are
    found, 95 and 99% of those with other forms of numbers, 93% with other numbers, 94%
    with a further step, 91% with a distraction, 71% of those turned round and 1% of
    those told in new words. Of the 7,473 questions of the training set 4 are flagged,
    each the story of a test question with other names and numbers. No question of
    MATH-500, AIME 2024, AMC 2023 or GSM8K matches one of another of these sets.

    Args:
      texts: the questions.
      n: tokens per n-gram, >= 1. Published rules have 8 (open-r1, s1), 13 (older), 32
        (Light-R1, arXiv 2503.10460).
      coverage: part of a question, in [0, 1]; 0 for the published rules, where one
        shared n-gram is enough.

    Raises:
      ValueError: n or coverage is out of range.

    Example:
      >>> index = BenchmarkIndex(["What is the sum of 2 and 2 ?"], n=4)
      >>> index.matches(["So, what is THE sum, of $2$ and 5?", "What is it?"])
      [Match(item=0, coverage=0.875), None]
    """

    def __init__(
        self, texts: Iterable[str], *, n: int = 6, coverage: float = 0.5
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        if not 0 <= coverage <= 1:
            raise ValueError(f"coverage must be in [0, 1], got {coverage}")
        self.n, self.coverage = n, coverage
        self._hasher = TokenHasher()
        items = _distinct([comparison_tokens(text) for text in texts])
        self._whole = {self._key(tokens): item for item, tokens in items.items()}
        self._short = _ShortItems(
            {item: tokens for item, tokens in items.items() if len(tokens) < n},
            self._hasher,
        )
        long = {item: tokens for item, tokens in items.items() if len(tokens) >= n}
        self._items = np.array(list(long), np.int64)  # [I] numbers of long questions
        grams = hashed_ngrams(self._hasher(long.values()), n)
        counts = np.diff(grams.starts)
        owner = np.repeat(np.arange(len(long)), counts)  # [M] which long question
        place = np.arange(len(owner)) - np.repeat(grams.starts[:-1], counts)  # [M]
        order = np.argsort(grams.hashes, kind="stable")
        self._grams, first, held = np.unique(
            grams.hashes[order], return_index=True, return_counts=True
        )
        # Where one n-gram is enough it does not matter whose it was.
        held = (
            np.minimum(held, 1) if coverage == 0 else np.where(held > _COMMON, 0, held)
        )
        kept = order[_ranges(first, held)]
        self._first = np.concatenate([[0], np.cumsum(held)])  # [grams + 1]
        self._owner, self._place = owner[kept], place[kept]
        self._size = _covered(self._owner, self._place, n, len(long))  # [I] tokens

    def matches(self, prompts: Sequence[str]) -> list[Match | None]:
        """The question in each prompt.

        Args:
          prompts: texts.

        Returns:
          The question with the largest coverage, or None.
        """
        return self.matches_tokens(self._hasher(map(comparison_tokens, prompts)))

    def matches_tokens(self, tokens: HashedTexts) -> list[Match | None]:
        """`matches` of hashed tokens, of any `TokenHasher`.

        Args:
          tokens: of the prompts.

        Returns:
          As `matches`.
        """
        found = self._short.inside(tokens)
        for row, key in enumerate(_keys(tokens)):
            if key in self._whole:
                found[row] = Match(self._whole[key], 1.0)
        for row, item, covered in zip(*self._shared(tokens), strict=True):
            part = float(covered / self._size[item])
            known = found[row]
            if part >= self.coverage and (known is None or part > known.coverage):
                found[row] = Match(int(self._items[item]), round(part, 4))
        return found

    def _key(self, tokens: list[str]) -> bytes:
        return next(_keys(self._hasher([tokens])))

    def _shared(self, tokens: HashedTexts) -> tuple[list[int], list[int], list[int]]:
        """Pairs of prompt and question with shared n-grams; tokens that they cover."""
        if not len(self._owner):
            return [], [], []
        grams = hashed_ngrams(tokens, self.n)
        at = np.searchsorted(self._grams, grams.hashes)
        at = np.minimum(at, len(self._grams) - 1)
        hits = np.flatnonzero(self._grams[at] == grams.hashes)
        rows = np.searchsorted(grams.starts, hits, side="right") - 1
        # An n-gram counts once in a prompt.
        rows, at = np.divmod(
            np.unique(rows * len(self._grams) + at[hits]), len(self._grams)
        )
        first, counts = self._first[at], np.diff(self._first)[at]
        entries = _ranges(first, counts)
        pairs = np.repeat(rows, counts) * len(self._items) + self._owner[entries]
        unique, compact = np.unique(pairs, return_inverse=True)
        covered = _covered(compact, self._place[entries], self.n, len(unique))
        row, item = np.divmod(unique, len(self._items))
        return row.tolist(), item.tolist(), covered.tolist()


def contaminated(
    prompts: Iterable[str],
    benchmark: Iterable[str],
    *,
    n: int = 6,
    coverage: float = 0.5,
) -> list[bool]:
    """Which prompts hold a question of a benchmark.

    Args:
      prompts: of the training set.
      benchmark: questions that must not be trained on.
      n: as of `BenchmarkIndex`.
      coverage: as of `BenchmarkIndex`.

    Returns:
      One flag per prompt, True for those to drop. Time is linear in the length of the
      texts.

    Raises:
      ValueError: n or coverage is out of range.

    Example:
      >>> benchmark = ["What is the sum of 2 and 2 ?"]
      >>> prompts = ["Tell me: what is the sum of 2 and 3", "What is it?"]
      >>> contaminated(prompts, benchmark, n=7)
      [True, False]
      >>> contaminated(prompts, benchmark, n=8)
      [False, False]
    """
    index = BenchmarkIndex(benchmark, n=n, coverage=coverage)
    return [match is not None for match in index.matches(list(prompts))]


class _ShortItems:
    """Questions of fewer than n tokens, found as runs of tokens."""

    def __init__(self, items: dict[int, list[str]], hasher: TokenHasher) -> None:
        # Their number of tokens -> hash of all of them -> number of the question.
        self._by_length: dict[int, dict[int, int]] = {}
        for item, tokens in items.items():
            if len(tokens) >= _SHORTEST_INSIDE:
                whole = hashed_ngrams(hasher([tokens]), len(tokens)).hashes
                self._by_length.setdefault(len(tokens), {})[int(whole[0])] = item

    def inside(self, tokens: HashedTexts) -> list[Match | None]:
        """The question that stands as a whole in each text."""
        found: list[Match | None] = [None] * (len(tokens.starts) - 1)
        for length, known in sorted(self._by_length.items()):
            runs = hashed_ngrams(tokens, length)
            wanted = np.array(list(known), np.uint64)
            for hit in np.flatnonzero(np.isin(runs.hashes, wanted)).tolist():
                row = int(np.searchsorted(runs.starts, hit, side="right")) - 1
                found[row] = Match(known[int(runs.hashes[hit])], 1.0)
        return found


def _distinct(items: Sequence[list[str]]) -> dict[int, list[str]]:
    """The first of equal questions, by number."""
    seen: dict[bytes, int] = {}
    return {
        number: tokens
        for number, tokens in enumerate(items)
        if tokens and seen.setdefault(text_key(tokens), number) == number
    }


def _keys(tokens: HashedTexts) -> Iterator[bytes]:
    """What is equal for equal texts; empty texts have none that is in an index."""
    starts = tokens.starts.tolist()
    return (
        tokens.hashes[start:end].tobytes() if end > start else b"empty"
        for start, end in itertools.pairwise(starts)
    )


def _ranges(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... (counts[0] of them), first[1], ..."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(first - (ends - counts), counts)


def _covered(group: np.ndarray, place: np.ndarray, n: int, groups: int) -> np.ndarray:
    """How many tokens the n-grams of each group cover, those twice covered once."""
    order = np.lexsort((place, group))
    group, place = group[order], place[order]
    # Each n-gram adds what lies beyond the one before it.
    added = np.full(len(group), n)
    same = group[1:] == group[:-1]
    added[1:][same] = np.minimum(place[1:] - place[:-1], n)[same]
    return np.bincount(group, weights=added, minlength=groups).astype(np.int64)
