r"""Texts as numbers that make reworded copies alike: tokens, n-grams, their hashes.

Case, punctuation, white space, LaTeX layout (`\left`, `\,`, `{}`, `$`) and commas in
numbers are not compared. All hashes are the same in every process and on every machine.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# One CJK character; a word, with a backslash if it is a LaTeX command; digits; a sign.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\\?[^\W\d_]+|\d+|[+=<>^/]"
)
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\[,!]|\\ )(?=\d{3}(?!\d))")
_LAYOUT = frozenset(
    re.findall(
        r"\\\w+",
        r"\left\right\big\bigl\bigr\bigg\biggl\biggr\quad\qquad\displaystyle\textstyle"
        r"\limits\nolimits\text\textbf\textit\mathrm\mathbf\mathit\mbox\hbox\rm\bf",
    )
)
_SAME = {"\\dfrac": "frac", "\\tfrac": "frac", "\\leq": "le", "\\geq": "ge"}
_REMEMBERED = 2**20  # tokens of a vocabulary
_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio


class HashedTexts(NamedTuple):
    """Hashes of the parts of R texts, one text after the other.

    Attributes:
      hashes: [N] uint64, of the tokens or n-grams of all texts.
      starts: [R + 1] int64; those of text i are hashes[starts[i]:starts[i + 1]].
    """

    hashes: np.ndarray
    starts: np.ndarray


def comparison_tokens(text: str) -> list[str]:
    r"""The parts of a text that are compared.

    Args:
      text: a prompt.

    Returns:
      Words, numbers and the signs + = < > ^ /; each CJK character is a word.

    Example:
      >>> comparison_tokens(r"Find $\left(1{,}000 \cdot x\right)$, where x=\dfrac12.")
      ['find', '1000', 'cdot', 'x', 'where', 'x', '=', 'frac', '12']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = _TOKEN.findall(_THOUSANDS.sub("", text.lower()))
    if "\\" not in text:
        return found
    return [
        _SAME.get(token, token.lstrip("\\")) for token in found if token not in _LAYOUT
    ]


class TokenHasher:
    """Hashes tokens, and remembers those of frequent ones."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, texts: Iterable[Sequence[str]]) -> HashedTexts:
        """The hashes of the tokens of texts.

        Args:
          texts: tokens of each.

        Returns:
          One hash per token.
        """
        known, hashes, starts = self._known, [], [0]
        if len(known) > _REMEMBERED:
            known.clear()
        for tokens in texts:
            for token in tokens:
                found = known.get(token)
                if found is None:
                    digest = hashlib.blake2b(token.encode(), digest_size=8).digest()
                    found = known[token] = int.from_bytes(digest, "little")
                hashes.append(found)
            starts.append(len(hashes))
        return HashedTexts(np.array(hashes, np.uint64), np.array(starts, np.int64))


def hashed_ngrams(tokens: HashedTexts, n: int) -> HashedTexts:
    """The hashes of all runs of n tokens of each text.

    h = (...(t_1 * c + t_2) * c + ...) + t_n modulo 2^64, with a fixed odd c.

    Args:
      tokens: of R texts.
      n: tokens per n-gram, >= 1.

    Returns:
      One hash per n-gram; none for a text of fewer than n tokens.

    Raises:
      ValueError: n < 1.

    Example:
      >>> tokens = TokenHasher()([["a", "b", "a", "b"], ["a"]])
      >>> grams = hashed_ngrams(tokens, 2)
      >>> grams.starts.tolist(), bool(grams.hashes[0] == grams.hashes[2])
      ([0, 3, 3], True)
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    lengths = np.diff(tokens.starts)  # [R]
    counts = np.maximum(lengths - n + 1, 0)  # [R]
    starts = np.concatenate([[0], np.cumsum(counts)])  # [R + 1]
    # Where each n-gram begins among all tokens.
    first = np.arange(starts[-1]) + np.repeat(tokens.starts[:-1] - starts[:-1], counts)
    hashes = np.zeros(len(first), np.uint64)
    for i in range(n):
        hashes = hashes * np.uint64(_ODD) + tokens.hashes[first + i]
    return HashedTexts(hashes, starts)


def text_key(tokens: Sequence[str]) -> bytes:
    """A key of 16 bytes, equal for equal tokens.

    Args:
      tokens: of a text.

    Returns:
      The key.
    """
    joined = "\x1f".join(tokens).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=16).digest()
