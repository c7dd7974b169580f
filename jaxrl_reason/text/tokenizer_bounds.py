"""What a tokenizer.json may ask for: bounded work for every text, bounded tables."""

import math
from collections.abc import Iterator
from typing import Any

from jaxrl_reason.text.regex_bounds import check_regex

# Published files have at most 50 MB, a million merges, and control tokens of 40
# characters.
LARGEST_JSON = 128 * 2**20
MOST_ENTRIES, LARGEST_ID, LONGEST_ADDED = 4 * 2**20, 2**26, 1000
# Of all control tokens, or of all pieces: their beginnings are kept, or tried.
MOST_BEGINNINGS = 2 * 10**8
# How many times longer a normalised text may be, and how many steps may make it so.
MOST_GROWTH, MOST_STEPS = 64, 32


def check_spec(spec: dict[str, Any]) -> None:
    """Raises for a tokenizer.json that could run for ever or fill the memory.

    Args:
      spec: contents of the file.

    Raises:
      ValueError: a normaliser lengthens texts too much, an expression may take for
        ever (`check_regex`), or a table or one of its entries is too large.
    """
    model = spec.get("model")
    model = model if isinstance(model, dict) else {}
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        for index in vocabulary.values():
            _check_id(index)
    for name in ("vocab", "merges"):
        _check_count(name, model.get(name))
    added = spec.get("added_tokens") or []
    _check_count("added_tokens", added)
    for entry in added:
        text = entry.get("content")
        if isinstance(text, str) and len(text) > LONGEST_ADDED:
            raise ValueError(
                f"an added token must have at most {LONGEST_ADDED} characters, got "
                f"{text!r:.80}"
            )
        _check_id(entry.get("id"))
    check_beginnings([entry.get("content") or "" for entry in added])
    steps = [*_steps(spec.get("normalizer")), *_steps(spec.get("pre_tokenizer"))]
    if len(steps) > MOST_STEPS:
        raise ValueError(f"a tokenizer must have at most {MOST_STEPS} steps")
    if math.prod(map(_growth, steps)) > MOST_GROWTH:
        raise ValueError(
            f"a normaliser must make texts at most {MOST_GROWTH} times as long"
        )
    for step in steps:
        pattern = step.get("pattern")
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            check_regex(pattern["Regex"])


def check_beginnings(texts: list[str]) -> None:
    """Raises for texts whose beginnings would be too much to keep or to try.

    Args:
      texts: control tokens, or pieces of a vocabulary.

    Raises:
      ValueError: the squares of their lengths add up to too much.
    """
    total = sum(len(text) ** 2 for text in texts)
    if total > MOST_BEGINNINGS:
        longest = max(texts, key=len)
        raise ValueError(
            "the tokens of a vocabulary must not be that long, got one of "
            f"{len(longest)} characters: {longest!r:.80}"
        )


def _check_id(index: Any) -> None:
    if isinstance(index, int) and index >= LARGEST_ID:
        raise ValueError(f"a token id must be below {LARGEST_ID}, got {index}")


def _check_count(name: str, table: Any) -> None:
    if isinstance(table, dict | list) and len(table) > MOST_ENTRIES:
        raise ValueError(
            f"{name} must have at most {MOST_ENTRIES} entries, got {len(table)}"
        )


def _steps(node: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser or a pre-tokenizer, sequences in sequences too."""
    if not isinstance(node, dict):
        return
    yield node
    for name in ("normalizers", "pretokenizers"):
        for part in node.get(name) or []:
            yield from _steps(part)


def _growth(step: dict[str, Any]) -> float:
    """How many times longer a step can make a text, and one of a character."""
    if isinstance(prepended := step.get("prepend"), str):
        return 1.0 + len(prepended) / MOST_GROWTH
    content, pattern = step.get("content"), step.get("pattern")
    if step.get("type") != "Replace" or not isinstance(content, str):
        return 1.0
    plain = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(plain, str) and plain:
        return max(1.0, len(content) / len(plain))
    return 1.0 + len(content)  # an expression may match between any two characters
