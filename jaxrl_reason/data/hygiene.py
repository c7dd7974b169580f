"""Duplicates, contradictions, shared words: what to look for in a set of prompts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def normalized_words(text: str) -> list[str]:
    r"""Words of a text in lower case, split at white space.

    Args:
      text: a prompt.

    Returns:
      Its words, with their punctuation.

    Example:
      >>> normalized_words("  Find  the\nSUM ")
      ['find', 'the', 'sum']
    """
    return text.lower().split()


def word_ngrams(text: str, n: int) -> set[str]:
    """All n-grams of words of a text.

    Args:
      text: a prompt.
      n: words per n-gram, >= 1.

    Returns:
      The n-grams; none for a text shorter than n words.

    Raises:
      ValueError: n < 1.

    Example:
      >>> sorted(word_ngrams("To be or not", 3))
      ['be or not', 'to be or']
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    words = normalized_words(text)
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def ngram_jaccard(a: str, b: str, n: int) -> float:
    """Shared n-grams of two texts divided by all of their n-grams.

    Args:
      a: a prompt.
      b: another.
      n: words per n-gram, >= 1.

    Returns:
      A number in [0, 1]; 0 if neither text has n words.

    Raises:
      ValueError: n < 1.

    Example:
      >>> ngram_jaccard("to be or not", "To be or else", 2)
      0.5
    """
    first, second = word_ngrams(a, n), word_ngrams(b, n)
    both = first | second
    return len(first & second) / len(both) if both else 0.0


def digit_free_key(text: str) -> str:
    """A text in lower case without signs, spaces and digits.

    Light-R1's exact match: a question with other numbers has the same key. It is
    aggressive: short templates collide.

    Args:
      text: a prompt.

    Returns:
      The key; empty for a text of only numbers and signs.

    Example:
      >>> digit_free_key("Find x: 3x + 12 = 27.")
      'findxx'
    """
    return re.sub(r"[\W\d]", "", text).lower()


def digit_free_matches(
    prompts: Iterable[str], benchmark: Iterable[str], *, min_length: int = 1
) -> list[bool]:
    """Which prompts equal one of a benchmark except for numbers and signs.

    Args:
      prompts: of the training set.
      benchmark: prompts that must not be trained on.
      min_length: the shortest key that counts, >= 1; otherwise every prompt of pure
        arithmetic would match every other.

    Returns:
      One flag per prompt, True for those to drop.

    Raises:
      ValueError: `min_length` < 1.

    Example:
      >>> prompts = ["find X: 5x+7=90", "Find y: 5y+7=90", "1 + 1 = ?"]
      >>> digit_free_matches(prompts, ["Find x: 3x + 12 = 27.", "2 + 3 = ?"])
      [True, False, False]
    """
    if min_length < 1:
        raise ValueError(f"min_length must be >= 1, got {min_length}")
    known = {digit_free_key(text) for text in benchmark}
    keys = map(digit_free_key, prompts)
    return [len(key) >= min_length and key in known for key in keys]


@dataclass(frozen=True)
class Deduplicated:
    """The prompts to keep in a dataset, and why the others are dropped.

    Attributes:
      kept: positions to keep, ascending.
      duplicates: positions of further copies with the same answer.
      conflicting: positions of all copies of prompts with more than one answer.
    """

    kept: tuple[int, ...]
    duplicates: tuple[int, ...]
    conflicting: tuple[int, ...]


def deduplicate(prompts: Sequence[str], answers: Sequence[str]) -> Deduplicated:
    """Keeps one copy of each prompt, and none whose copies have different answers.

    Prompts are compared in lower case with white space collapsed, answers only with
    white space collapsed, since "A" and "a" may be two answers. Normalise answers first
    if 1/2 and 0.5 should be equal.

    Args:
      prompts: of the training set.
      answers: one per prompt.

    Returns:
      Positions; every position is in exactly one of the three.

    Raises:
      ValueError: there is not one answer per prompt.

    Example:
      >>> deduplicate(["1 + 1", "1  + 1", "Why?", "why?"], ["2", "2 ", "so", "no"])
      Deduplicated(kept=(0,), duplicates=(1,), conflicting=(2, 3))
    """
    if len(prompts) != len(answers):
        raise ValueError(
            f"answers must be one per prompt, {len(prompts)}, got {len(answers)}"
        )
    keys = [_collapsed(prompt) for prompt in prompts]
    said: dict[str, set[str]] = {}
    for key, answer in zip(keys, answers, strict=True):
        said.setdefault(key, set()).add(" ".join(answer.split()))
    kept, duplicates, conflicting = [], [], []
    seen: set[str] = set()
    for position, key in enumerate(keys):
        if len(said[key]) > 1:
            conflicting.append(position)
        elif key in seen:
            duplicates.append(position)
        else:
            kept.append(position)
        seen.add(key)
    return Deduplicated(tuple(kept), tuple(duplicates), tuple(conflicting))


def _collapsed(text: str) -> str:
    return " ".join(normalized_words(text))
