"""Keeps literal control tokens in messages from becoming control tokens.

A chat template writes a chat as one text, in which `<|im_end|>` from the template and
`<|im_end|>` typed by a user look alike. So before the template runs, a mark (a
character that occurs nowhere in the messages) is put inside every control token that
the messages spell; the template's own stay whole and are found; then the marks are
taken out, and what lies between the control tokens is encoded as text only.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Private characters without meaning, which templates neither trim nor test for. Last
# plane first: nobody uses it.
_MARKS = (range(0x100000, 0x10FFFE), range(0xF0000, 0xFFFFE), range(0xE000, 0xF900))


class Spellings:
    """Finds where a text spells control tokens, or part of one at its edges.

    Args:
      control: texts of the control tokens, each of at least two characters: one of a
        single character has no inside to put a mark in.

    Raises:
      ValueError: if a text is shorter.

    Example:
      >>> Spellings(["<s>", "</s>"]).split_points("a <s> b <")
      [3, 9]
    """

    def __init__(self, control: Iterable[str]) -> None:
        control = sorted(control)
        short = [text for text in control if len(text) < 2]
        if short:
            raise ValueError(f"a control token must have two characters, got {short}")
        inside = [(text, middle) for text in control for middle in range(1, len(text))]
        self._beginnings = {text[:middle] for text, middle in inside}
        self._ends = {text[middle:] for text, middle in inside}
        self._firsts = {text[0] for text in control}
        self._longest = max(map(len, control), default=1) - 1
        # Looking ahead finds tokens that overlap as well.
        words = "|".join(map(re.escape, control))
        self._found = re.compile(f"(?={words})") if control else None

    def split_points(self, text: str, *, every: bool = False) -> list[int]:
        """Places where a mark must stand, so that no control token can be whole.

        Args:
          text: what is not to be trusted.
          every: also after every character that begins a control token, so that a
            template cannot join one out of parts either.

        Returns:
          Indices in ascending order, each once.
        """
        points = set()
        if self._found:
            points = {match.start() + 1 for match in self._found.finditer(text)}
        if every:
            points |= {i + 1 for i, letter in enumerate(text) if letter in self._firsts}
        # The beginning or the end of a token may stand at the edge of the text, and the
        # template, or the next message, may write the rest.
        for size in range(1, min(self._longest, len(text)) + 1):
            if text[-size:] in self._beginnings:
                points.add(len(text) - size + 1)
            if text[:size] in self._ends:
                points.add(0)
        return sorted(points)


class Protector:
    """Marks control tokens in the strings of a value, and takes the marks out again.

    Args:
      spellings: of the control tokens.
      values: everything that may hold a text in which the mark must not occur.

    Raises:
      ValueError: if the values use every private character, or hold anything but
        strings, numbers, booleans, None, and lists and mappings of them.

    Example:
      >>> protector = Protector(Spellings(["<s>"]), ["a <s> b"])
      >>> marked = protector.protect("a <s> b")
      >>> "<s>" in marked, protector.restore(marked)
      (False, 'a <s> b')
    """

    def __init__(self, spellings: Spellings, values: Sequence[Any]) -> None:
        self._spellings = spellings
        self._mark = _unused_mark("".join(_strings(values)))
        # A template may write JSON with its non-ASCII characters escaped.
        self._escaped = _json_escape(self._mark)

    def protect(self, value: Any, *, every: bool = False) -> Any:
        """The value, with new lists and dicts, in which no control token stands whole.

        Args:
          value: strings, numbers, booleans, None, and lists and mappings of them.
          every: as for `Spellings.split_points`.

        Returns:
          The marked value. Keys of mappings are marked too: templates write them.
        """
        if isinstance(value, str):
            return self._mark_text(value, every)
        if isinstance(value, Mapping):
            return {
                self._mark_text(key, False): self.protect(item, every=every)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.protect(item, every=every) for item in value]
        return value

    def restore(self, text: str) -> str:
        """The text without marks.

        Args:
          text: part of what a template wrote.

        Returns:
          What it would have been had nothing been marked.
        """
        return text.replace(self._mark, "").replace(self._escaped, "")

    def _mark_text(self, text: str, every: bool) -> str:
        bounds = [0, *self._spellings.split_points(text, every=every), len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(bounds)]
        return self._mark.join(pieces)


def _strings(value: Any) -> Iterable[str]:
    """Every string in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a key in a message must be a string, got {key!r}")
            yield key
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif not (value is None or isinstance(value, bool | int | float)):
        # The template's sandbox need not know which of an object's methods are safe.
        kind = type(value).__name__
        raise ValueError(f"a message must hold plain JSON values, got a {kind}")


def _unused_mark(text: str) -> str:
    used = set(text)
    for characters in _MARKS:
        for number in characters:
            mark = chr(number)
            if mark not in used and _json_escape(mark) not in text:
                return mark
    raise ValueError("messages must leave a private character unused, got all of them")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
