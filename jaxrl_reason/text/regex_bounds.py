"""Regular expressions of tokenizer files that may take for ever are refused.

`tokenizers` matches by backtracking and cannot be stopped. An expression is read here
only as far as its time depends on it: how often it repeats and how often it chooses. A
repetition inside of another, or of a choice, takes a time exponential in the text; each
repetition that is tried anew for every length of another takes one more factor of its
length. What passes takes at most the square: all lengths of one run, from every place.
"""

import re
from dataclasses import dataclass, replace

LONGEST, MOST_WAYS, MOST_REPEATS = 10_000, 1_000, 2
# Repetitions up to this often are ways to choose between.
_FEW = 16
_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")
_FLAGS = re.compile(r"\?([a-zA-Z]*)(?:-[a-zA-Z]*)?([:)])")
_NAME = re.compile(r"\?<(?![=!])[^>]*>|\?'[^']*'")


@dataclass(frozen=True)
class _Part:
    """How a part of an expression can match.

    `ways` to choose, `repeats` in a row, whether it may be `empty` and so cannot fail,
    and whether something in it can fail after its `last` repetition.
    """

    ways: int = 1
    repeats: int = 0
    empty: bool = False
    last: bool = False

    @property
    def fixed(self) -> bool:
        return self.ways == 1 and self.repeats == 0 and not self.empty


def check_regex(pattern: str) -> None:
    r"""Raises for an expression that could take far longer than its text is long.

    Those of published tokenizers pass: they choose between words, runs of letters, runs
    of digits and runs of white space.

    Args:
      pattern: in Oniguruma's syntax.

    Raises:
      ValueError: it repeats what repeats or chooses, refers back, or has too many
        repetitions or choices in a row.

    Example:
      >>> check_regex(r" ?\p{L}+|\s+(?!\S)|\s+")
      >>> check_regex("(a+)+")
      Traceback (most recent call last):
      ValueError: a regular expression must not repeat repetitions, got '(a+)+'
    """
    if len(pattern) > LONGEST:
        raise _refusal(f"have at most {LONGEST} characters", pattern)
    try:
        part = _Reader(pattern).alternatives(0)
    except RecursionError:
        raise _refusal("not be nested so deeply", pattern) from None
    if part.ways > MOST_WAYS:
        raise _refusal(f"have at most {MOST_WAYS} choices in a row", pattern)
    if part.repeats > MOST_REPEATS or (part.repeats > 1 and part.last):
        raise _refusal(
            f"have at most {MOST_REPEATS} repetitions in a row, the last at the end",
            pattern,
        )


def _refusal(rule: str, pattern: str) -> ValueError:
    return ValueError(f"a regular expression must {rule}, got {pattern!r:.80}")


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._text, self._at = pattern, 0

    def alternatives(self, depth: int) -> _Part:
        """Up to the end of the group that is open, or of the expression."""
        found = [self._sequence(depth)]
        while self._next() == "|":
            self._at += 1
            found.append(self._sequence(depth))
        worst = max(found, key=lambda part: (part.repeats + part.last, part.repeats))
        ways, empty = (
            sum(part.ways for part in found),
            any(part.empty for part in found),
        )
        return _Part(ways, worst.repeats, empty, worst.last)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _sequence(self, depth: int) -> _Part:
        ways, repeats, empty, last = 1, 0, True, False
        while (sign := self._next()) and sign != "|" and not (sign == ")" and depth):
            part = self._quantified(self._atom(depth))
            ways, empty = min(ways * part.ways, 10**9), empty and part.empty
            if part.repeats:
                last = part.last
            elif repeats and not part.empty:
                last = True
            repeats += part.repeats
        return _Part(ways, repeats, empty, last)

    def _quantified(self, part: _Part) -> _Part:
        while True:
            sign = self._next()
            braces = _BRACES.match(self._text, self._at)
            if sign in ("*", "+", "?") and sign:
                least, most = (1 if sign == "+" else 0), 1 if sign == "?" else None
                self._at += 1
                if self._next() in ("?", "+") and self._next():  # lazy, possessive
                    self._at += 1
            elif braces and braces[0] not in ("{}", "{,}"):
                least = int(braces[1] or 0)
                most = int(braces[3]) if braces[3] else None if braces[2] else least
                self._at = braces.end()
                if self._next() == "?":
                    self._at += 1
            else:
                return part
            part = self._repeated(part, least, most)

    def _repeated(self, part: _Part, least: int, most: int | None) -> _Part:
        empty = part.empty or least == 0
        if most == 1:
            return _Part(part.ways + (least == 0), part.repeats, empty, part.last)
        if not part.fixed:
            raise _refusal("not repeat repetitions", self._text)
        if most is None or most - least >= _FEW:
            return _Part(1, 1, empty)
        return _Part(most - least + 1, 0, empty)

    def _atom(self, depth: int) -> _Part:
        sign = self._next()
        self._at += 1
        if sign == "\\":
            return self._escape()
        if sign == "[":
            self._class()
        elif sign == "(":
            return self._group(depth + 1)
        return _Part()

    def _escape(self) -> _Part:
        sign = self._next()
        self._at += 1
        if sign in ("k", "g", "X") or sign in tuple("123456789"):
            raise _refusal("not refer back", self._text)
        if sign in ("p", "P", "x", "u", "o") and self._next() == "{":
            end = self._text.find("}", self._at)
            self._at = len(self._text) if end < 0 else end + 1
        return _Part(2) if sign == "R" else _Part()

    def _class(self) -> None:
        """Past the class of characters whose bracket was read; they hold others."""
        if self._next() == "^":
            self._at += 1
        if self._next() == "]":
            self._at += 1
        open_ones = 1
        while open_ones and (sign := self._next()):
            self._at += 2 if sign == "\\" else 1
            open_ones += (sign == "[") - (sign == "]")

    def _group(self, depth: int) -> _Part:
        text = self._text
        if text.startswith("?#", self._at):
            self._at = text.find(")", self._at) + 1 or len(text)
            return _Part()
        flags, name = _FLAGS.match(text, self._at), _NAME.match(text, self._at)
        alone = looks = False
        if flags:
            if "x" in flags[1]:
                raise _refusal("not allow white space", text)
            self._at, alone = flags.end(), flags[2] == ")"
        elif name:
            self._at = name.end()
        elif self._next() == "?":
            kind = next(
                (
                    k
                    for k in ("?<=", "?<!", "?=", "?!", "?>")
                    if text.startswith(k, self._at)
                ),
                None,
            )
            if kind is None:
                raise _refusal("have only known groups", text)
            self._at += len(kind)
            looks = kind != "?>"
        part = self.alternatives(depth)
        if not alone:  # flags alone hold up to the end of what is around them
            self._at += 1
        # To look around can fail also where what is looked for may be empty.
        return replace(part, empty=False) if looks else part
