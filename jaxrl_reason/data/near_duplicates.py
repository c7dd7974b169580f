"""Prompts that are nearly the same: MinHash finds candidates, their n-grams decide."""

from collections.abc import Callable

import numpy as np

from jaxrl_reason.data.comparison_text import HashedTexts

# Bands of rows of a signature. Two texts with Jaccard similarity s share a band with
# probability 1 - (1 - s^5)^20: 0.9996 at s = 0.8, 0.97 at 0.7, 0.47 at 0.5.
BANDS, ROWS = 20, 5
# A prompt is compared with this many of each bucket: more are alike in a phrase only.
_COMPARED = 32
_CONSTANTS = np.random.default_rng(0x0DD).integers(
    2**63, size=(2, BANDS * ROWS), dtype=np.uint64
)
# Small enough for the processor's cache.
_TEXTS_AT_ONCE = 512


def minhash(grams: HashedTexts) -> np.ndarray:
    """The MinHash signatures of texts (Broder 1997).

    Each column is the smallest value of a random function over the n-grams of a text.
    Two texts are equal in a column with probability |A & B| / |A | B|.

    Args:
      grams: n-grams of R texts; a text without any gets the largest values.

    Returns:
      [R, 100] uint32.

    Example:
      >>> from jaxrl_reason.data.comparison_text import TokenHasher, hashed_ngrams
      >>> tokens = TokenHasher()([list("abcdefgh"), list("abcdefgx")])
      >>> a, b = minhash(hashed_ngrams(tokens, 2))
      >>> 0.6 < float(np.mean(a == b)) < 0.9  # 6 of 8 bigrams are shared: 0.75
      True
    """
    rows = len(grams.starts) - 1
    found = np.full((rows, BANDS * ROWS), np.uint32(2**32 - 1))
    factors = _CONSTANTS[0] | np.uint64(1)
    for begin in range(0, rows, _TEXTS_AT_ONCE):
        starts = grams.starts[begin : begin + _TEXTS_AT_ONCE + 1]
        full = np.flatnonzero(np.diff(starts))
        if not len(full):
            continue
        hashes = grams.hashes[starts[0] : starts[-1]]
        at = starts[full] - starts[0]
        for column in range(BANDS * ROWS):
            mixed = hashes * factors[column]
            mixed += _CONSTANTS[1, column]
            mixed >>= np.uint64(32)
            found[begin + full, column] = np.minimum.reduceat(mixed, at)
    return found


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """The buckets of texts: those that share one are candidates.

    Args:
      signatures: [R, 100] uint32, from `minhash`.

    Returns:
      [R, 20] uint64, of each text's five values in each band.
    """
    bands = signatures.reshape(len(signatures), BANDS, ROWS).astype(np.uint64)
    keys = np.zeros(bands.shape[:2], np.uint64)
    for row in range(ROWS):
        keys = (keys ^ bands[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def near_duplicates(
    keys: np.ndarray, similar: Callable[[int, int], bool]
) -> dict[int, int]:
    """Texts that are nearly an earlier one that is kept.

    Args:
      keys: [R, bands] uint64, from `band_keys`; mix the answers into them if prompts
        with different answers are different.
      similar: decides on two candidates, the later one first.

    Returns:
      Position of each text to drop -> position of the kept one that it repeats. The
      first of similar texts is kept.

    Example:
      >>> keys = np.array([[1, 5], [2, 6], [1, 7], [3, 7]], np.uint64)
      >>> near_duplicates(keys, lambda later, earlier: True)
      {2: 0}
      >>> near_duplicates(keys, lambda later, earlier: earlier > 0)
      {3: 2}
    """
    buckets = _shared_buckets(keys)
    alone = np.all(buckets < 0, axis=1)
    kept: dict[int, list[int]] = {}
    dropped: dict[int, int] = {}
    for position in np.flatnonzero(~alone).tolist():
        own = [bucket for bucket in buckets[position].tolist() if bucket >= 0]
        compared: set[int] = set()
        for bucket in own:
            for other in kept.get(bucket, ()):
                if other not in compared:
                    compared.add(other)
                    if similar(position, other):
                        dropped[position] = other
                        break
            if position in dropped:
                break
        else:
            for bucket in own:
                held = kept.setdefault(bucket, [])
                if len(held) < _COMPARED:
                    held.append(position)
    return dropped


def _shared_buckets(keys: np.ndarray) -> np.ndarray:
    """[R, bands] number of the bucket that a text shares with another, or -1."""
    found = np.full(keys.shape, -1, np.int32)
    total = 0
    for band in range(keys.shape[1]):
        _, inverse, counts = np.unique(
            keys[:, band], return_inverse=True, return_counts=True
        )
        number = np.full(len(counts), -1, np.int32)
        shared = counts > 1
        number[shared] = total + np.arange(int(shared.sum()))
        total += int(shared.sum())
        found[:, band] = number[inverse]
    return found


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Shared n-grams divided by all, of two texts.

    Args:
      a: [N] hashes of the n-grams of a text.
      b: [M] of another.

    Returns:
      A number in [0, 1]; 0 if neither has any.

    Example:
      >>> jaccard(np.array([1, 2, 3, 3]), np.array([2, 3, 4]))
      0.5
    """
    first, second = set(a.tolist()), set(b.tolist())
    both = len(first | second)
    return len(first & second) / both if both else 0.0
