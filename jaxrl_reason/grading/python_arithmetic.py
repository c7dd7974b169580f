"""Python's arithmetic on short texts, parsed by hand: only for old scores.

TinyZero's scorer hands a model's text to Python's `eval`. To give the same scores
without running anything, this module reads the same little language: numbers with
decimals, signs, + - * / // ** and round brackets. New code uses
`jaxrl_reason.grading.arithmetic`.
"""

import re

MAX_CHARACTERS = 512
MAX_DEPTH = 32
# 9**9**9 has 370 million digits: no value is computed that needs more bits than this.
MAX_BITS = 4096

_TOKEN = re.compile(r"[ \t\r\n]*([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+|\*\*|//|[-+*/()])")
_ADDING = ("+", "-")
_SCALING = ("*", "/", "//")


class _Refused(Exception):
    """Python would raise here, or the value is too large."""


def python_value(text: str) -> int | float | None:
    """Value that Python gives an arithmetic expression, or None.

    Args:
      text: numbers, signs, + - * / // ** and round brackets.

    Returns:
      The value; None if Python would refuse the text, or for text or values too long
      to work out (512 characters, 4096 bits, 32 levels).

    Example:
      >>> python_value("-2**2 + 7//2")
      -1
      >>> python_value("03 + 4") is None
      True
    """
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        parser = _Parser(_tokens(text))
        value = parser.sum(0)
        if parser.position < len(parser.tokens):
            return None
        return value
    except (_Refused, ZeroDivisionError, OverflowError):
        return None


def _tokens(text: str) -> list[str]:
    text = text.strip(" \t\r\n")
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Refused(text[position:])
        tokens.append(match[1])
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over the tokens; every recursion counts its depth."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    def peek(self) -> str:
        at_end = self.position >= len(self.tokens)
        return "" if at_end else self.tokens[self.position]

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self, depth: int) -> int | float:
        value = self.product(depth)
        while self.peek() in _ADDING:
            operator = self.take()
            right = self.product(depth)
            value = value + right if operator == "+" else value - right
        return value

    def product(self, depth: int) -> int | float:
        value = self.signed(depth)
        while self.peek() in _SCALING:
            operator = self.take()
            right = self.signed(depth)
            if operator == "*":
                value = value * right
            elif operator == "/":
                value = value / right
            else:
                value = value // right
            _bounded(value)
        return value

    def signed(self, depth: int) -> int | float:
        if depth > MAX_DEPTH:
            raise _Refused("too deep")
        if self.peek() in _ADDING:
            operator = self.take()
            value = self.signed(depth + 1)
            return value if operator == "+" else -value
        return self.power(depth)

    def power(self, depth: int) -> int | float:
        base = self.atom(depth)
        if self.peek() != "**":
            return base
        self.take()
        # ** binds to the right and takes a sign on its right: 2**-1, 2**3**2.
        return _power(base, self.signed(depth + 1))

    def atom(self, depth: int) -> int | float:
        token = self.take()
        if token == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise _Refused("bracket not closed")
            return value
        if not token or token[0] not in ".0123456789":
            raise _Refused(f"no number at {token!r}")
        if "." in token:
            return float(token)
        # Python takes 00 and refuses 03.
        if token[0] == "0" and token.strip("0"):
            raise _Refused("leading zero")
        return _bounded(int(token))


def _power(base: int | float, exponent: int | float) -> int | float:
    """Power, refused before it is worked out if it would be huge."""
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent > 0
    if whole and int(base).bit_length() * exponent > MAX_BITS:
        raise _Refused("too large")
    value = base**exponent
    if isinstance(value, complex):
        raise _Refused("complex")
    return value


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise _Refused("too large")
    return value
