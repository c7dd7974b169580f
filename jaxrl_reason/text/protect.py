"""Prevents literal control tokens in messages from becoming control tokens.

A chat template renders a chat as one text, in which `<|im_end|>` from the template and
`<|im_end|>` typed by a user look the same. So before the template runs, a mark (a
character that does not occur in the messages) is inserted in every control token that
the messages spell; the template's own stay whole and are found; then the marks are
removed, and the text between the control tokens is encoded as text only.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Private-use characters, which templates neither trim nor test for. The last plane
# first, as it is unused.
_MARKS = (range(0x100000, 0x10FFFE), range(0xF0000, 0xFFFFE), range(0xE000, 0xF900))


class Spellings:
    """Finds control tokens spelled in a text, or parts of them at its edges.

    Args:
      control: texts of the control tokens, each of at least two characters, so that a
        mark fits inside.

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
        # Lookahead also finds overlapping tokens.
        words = "|".join(map(re.escape, control))
        self._found = re.compile(f"(?={words})") if control else None

    def split_points(self, text: str, *, every: bool = False) -> list[int]:
        """Positions of marks, so that no control token is whole.

        Args:
          text: the untrusted text.
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
        # The start or the end of a token may be at the edge of the text, and the
        # template, or the next message, may add the rest.
        for size in range(1, min(self._longest, len(text)) + 1):
            if text[-size:] in self._beginnings:
                points.add(len(text) - size + 1)
            if text[:size] in self._ends:
                points.add(0)
        return sorted(points)


class Protector:
    """Marks control tokens in the strings of a value, and removes the marks.

    Args:
      spellings: of the control tokens.
      values: all values with texts in which the mark must not occur.

    Raises:
      ValueError: if the values use every private-use character, or have anything other
      than strings, numbers, booleans, None, and lists and mappings of them.

    Example:
      >>> protector = Protector(Spellings(["<s>"]), ["a <s> b"])
      >>> marked = protector.protect("a <s> b")
      >>> "<s>" in marked, protector.restore(marked)
      (False, 'a <s> b')
    """

    def __init__(self, spellings: Spellings, values: Sequence[Any]) -> None:
        self._spellings = spellings
        text = "".join(_strings(values))
        self._mark = _unused_mark(text)
        self._end = _unused_mark(text + self._mark)
        # A template may write JSON with its non-ASCII characters escaped.
        self._escaped = _json_escape(self._mark)

    def protect(self, value: Any, *, every: bool = False) -> Any:
        """The value, with new lists and dicts, in which no control token is whole.

        Args:
          value: strings, numbers, booleans, None, and lists and mappings of them.
          every: as for `Spellings.split_points`.

        Returns:
          The marked value. Keys of mappings are marked too, since templates render
          them.
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
          text: part of the rendered text.

        Returns:
          The text as rendered without marks.
        """
        return text.replace(self._mark, "").replace(self._escaped, "")

    def with_end(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with a mark at the end of its content, for `up_to_end`.

        Args:
          message: with a text as its content.

        Returns:
          The marked message.

        Raises:
          ValueError: if the content is no text.
        """
        content = message.get("content")
        if not isinstance(content, str):
            raise ValueError(
                f"a message to continue must have a text as content, got {content!r}"
            )
        # A space, which a template that trims the content takes away.
        return {**message, "content": f"{content}{self._end} "}

    def up_to_end(self, text: str) -> str:
        """A rendered chat up to the end of the content that has the mark.

        Args:
          text: rendered, of messages of which `with_end` marked one.

        Returns:
          The text before the mark, without spaces at its end if the template trims.

        Raises:
          ValueError: if the template left out the mark.
        """
        before, mark, after = text.rpartition(self._end)
        if not mark:
            raise ValueError(
                "a chat template must write the message to continue whole, got one "
                "that leaves out its end"
            )
        return before if after.startswith(" ") else before.rstrip()

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
        # So the template's sandbox need not know which methods of objects are safe.
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
