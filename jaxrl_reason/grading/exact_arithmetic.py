"""Exact arithmetic on text that a model wrote, without executing it as code."""

import re
from dataclasses import dataclass
from fractions import Fraction

# An answer to a puzzle of a few numbers is far below these; they bound the size of
# every number in the calculation, and so the time, for any text.
MAX_CHARACTERS = 512
MAX_DEPTH = 64
MAX_DIGITS = 12

# [0-9] and not \d, which also matches full-width and other Unicode digits.
_TOKEN = re.compile(r"[ \t\r\n]*([0-9]+|[-+*/()])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Examined:
    """The value of an expression, or why it has none.

    Attributes:
      value: the exact value, None if the text is not an expression of the grammar.
      numbers: the numbers in it, from left to right (empty without a value).
      reason: why there is no value; empty if there is one.
    """

    value: Fraction | None
    numbers: tuple[int, ...] = ()
    reason: str = ""


class _Refused(Exception):
    """The text is not an expression; the message says why."""


def exact_value(text: str) -> Fraction | None:
    """Exact value of an expression of unsigned integers, + - * / and ( ).

    Everything else has no value: signs, powers, floor division, decimals, leading
    zeros, adjacent numbers, equations, names, digits other than 0-9, division by zero,
    and texts longer or deeper than any honest answer. Time is linear in the text.

    Args:
      text: the expression.

    Returns:
      The value, or None; `examine` gives the reason as well.

    Example:
      >>> exact_value("(1 + 2) / 4")
      Fraction(3, 4)
      >>> exact_value("2**3") is None
      True
    """
    return examine(text).value


def examine(text: str) -> Examined:
    """Value of an expression, the numbers in it, or the reason why it has no value.

    Args:
      text: the expression, see `exact_value` for the grammar.

    Returns:
      The result. No text raises.

    Example:
      >>> examine("3 * 5 + 7").numbers
      (3, 5, 7)
      >>> examine("3 - -5").reason
      "expected a number or '(' at '-'"
    """
    try:
        tokens = _tokens(text)
        value = _value(tokens)
    except _Refused as refusal:
        return Examined(None, (), str(refusal))
    numbers = tuple(token for token in tokens if isinstance(token, int))
    return Examined(value, numbers)


def _tokens(text: str) -> list[int | str]:
    """Numbers and signs of a text."""
    if len(text) > MAX_CHARACTERS:
        raise _Refused(f"longer than {MAX_CHARACTERS} characters")
    text = text.strip(" \t\r\n")
    tokens: list[int | str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _Refused(f"not arithmetic at {text[position : position + 16]!r}")
        word = match[1]
        position = match.end()
        if word[0] not in "0123456789":
            tokens.append(word)
        elif len(word) > MAX_DIGITS:
            raise _Refused(f"a number of more than {MAX_DIGITS} digits")
        elif word[0] == "0" and len(word) > 1:
            raise _Refused(f"leading zero in {word!r}")
        else:
            tokens.append(int(word))
    return tokens


def _value(tokens: list[int | str]) -> Fraction:
    """Value by operator precedence with two stacks, so that nothing recurses."""
    values: list[Fraction] = []
    waiting: list[str] = []
    depth = 0
    want_value = True
    for token in tokens:
        if want_value and isinstance(token, int):
            values.append(Fraction(token))
            want_value = False
        elif want_value and token == "(":
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(f"more than {MAX_DEPTH} brackets deep")
            waiting.append("(")
        elif want_value:
            raise _Refused(f"expected a number or '(' at '{token}'")
        elif token == ")":
            while waiting and waiting[-1] != "(":
                _apply(waiting.pop(), values)
            if not waiting:
                raise _Refused("a closing bracket has no opening one")
            waiting.pop()
            depth -= 1
        elif isinstance(token, str) and token in _PRECEDENCE:
            # >= makes operators of equal precedence left-associative.
            while waiting and _PRECEDENCE.get(waiting[-1], 0) >= _PRECEDENCE[token]:
                _apply(waiting.pop(), values)
            waiting.append(token)
            want_value = True
        else:
            raise _Refused(f"expected an operator or ')' at '{token}'")
    if want_value:
        raise _Refused("ends where a number should follow" if tokens else "empty")
    if depth:
        raise _Refused("a bracket is not closed")
    while waiting:
        _apply(waiting.pop(), values)
    return values[0]


def _apply(operator: str, values: list[Fraction]) -> None:
    """Replaces the last two values by the operator's result."""
    right = values.pop()
    left = values.pop()
    if operator == "+":
        values.append(left + right)
    elif operator == "-":
        values.append(left - right)
    elif operator == "*":
        values.append(left * right)
    elif right:
        values.append(left / right)
    else:
        raise _Refused("division by zero")
