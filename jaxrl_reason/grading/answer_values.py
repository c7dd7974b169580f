r"""What an answer may be: a small closed grammar of values.

`Quantity` (a number or an expression, with a unit), `Collection` (tuple, interval, set,
list, union, matrix), `Named` (`x = 5`, `x \in [0, 1]`), `Relation` (any other equation
or inequality) and `Words`. An expression is a tree of tuples, ("add", left, right),
whose leaves are ("num", Fraction), ("name", "x"), ("const", "pi") and ("raw", text).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Tree = tuple[Any, ...]
Unit = tuple[tuple[str, int], ...]  # (("m", 1), ("s", -1))

# The largest exact number has this many bits: an honest answer is far smaller.
MAX_BITS = 20_000
_MAX_FACTORIAL = 500


@dataclass(frozen=True)
class Quantity:
    r"""A number or an expression.

    Attributes:
      tree: the expression.
      literal: the number if it is written as one (`-1.5`, `\frac{3}{2}`, `3e12`), or
        the digits of one too long to be converted; None for anything else.
      unit: its units with their powers; empty without.
    """

    tree: Tree
    literal: Fraction | str | None = None
    unit: Unit = ()


@dataclass(frozen=True)
class Collection:
    r"""Several values.

    Attributes:
      kind: the brackets, "()", "[]", "(]" or "[)"; "{}" for sets and lists, whose order
        does not matter; "union"; "matrix", whose parts are of kind "row".
      parts: the values.
    """

    kind: str
    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Named:
    r"""`x = value` or `x \in value`.

    Attributes:
      name: of the variable.
      value: of it; does not contain the name.
    """

    name: str
    value: "Value"


@dataclass(frozen=True)
class Relation:
    """A chain of equations and inequalities.

    Attributes:
      signs: "=", "<", "<=", ">", ">=" or "!=", one less than sides.
      sides: the expressions.
    """

    signs: tuple[str, ...]
    sides: tuple[Tree, ...]


@dataclass(frozen=True)
class Words:
    """A choice or a word.

    Attributes:
      text: lower case, with single spaces.
    """

    text: str


Value = Quantity | Collection | Named | Relation | Words


class Refused(Exception):
    """A text is not in the grammar, or an expression exceeds a bound."""


def nodes(tree: Tree) -> Iterator[Tree]:
    """All nodes of an expression, the root first.

    Args:
      tree: the expression.

    Yields:
      The nodes.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [part for part in node[1:] if isinstance(part, tuple)]


def names(tree: Tree) -> frozenset[str]:
    """The variables of an expression.

    Args:
      tree: the expression.

    Returns:
      Their names.

    Example:
      >>> sorted(names(("add", ("name", "x"), ("num", Fraction(1)))))
      ['x']
    """
    return frozenset(node[1] for node in nodes(tree) if node[0] == "name")


def rational(tree: Tree) -> Fraction | None:
    """The exact value of an expression of rational numbers.

    Args:
      tree: the expression.

    Returns:
      The value; None if it is not rational, or not found by arithmetic on integers.

    Raises:
      Refused: a number in it is too large, or something is divided by 0.

    Example:
      >>> two = ("num", Fraction(2))
      >>> rational(("pow", two, ("neg", two)))
      Fraction(1, 4)
      >>> rational(("root", two, two)) is None
      True
    """
    operation = tree[0]
    if operation == "num":
        return tree[1]
    if operation not in _EXACT:
        return None
    values = [rational(part) for part in tree[1:]]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    result: Fraction | None = _EXACT[operation](*known)
    if result is not None:
        check_bits(result)
    return result


def check_bits(value: Fraction) -> None:
    """Refuses numbers that would slow everything after them.

    Args:
      value: any number.

    Raises:
      Refused: it has too many bits.
    """
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise Refused("a number is too large")


def _divide(above: Fraction, below: Fraction) -> Fraction:
    if not below:
        raise Refused("division by zero")
    return above / below


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator > 1:
        root = _root(base, Fraction(exponent.denominator))
        return None if root is None else _power(root, Fraction(exponent.numerator))
    if base in (0, 1, -1):
        if not base and exponent <= 0:
            raise Refused("a power of zero is undefined")
        return Fraction(base ** int(exponent % 2 or 2)) if exponent else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise Refused("a power is too large")
    return Fraction(base ** int(exponent))


def _root(value: Fraction, degree: Fraction) -> Fraction | None:
    """Exact root; None if it is not rational."""
    if degree.denominator > 1 or not 2 <= degree <= 100:
        return None
    n, odd = int(degree), degree % 2 == 1
    if value < 0 and not odd:
        return None
    parts = [_integer_root(x, n) for x in (abs(value.numerator), value.denominator)]
    if None in parts:
        return None
    top, bottom = (part or 0 for part in parts)
    return Fraction(-top if value < 0 else top, bottom)


def _integer_root(value: int, n: int) -> int | None:
    """The n-th root of an integer >= 0 by bisection, None if it is not an integer."""
    if n == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    low, high = 0, 1 << (value.bit_length() // n + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**n < value:
            low = middle + 1
        else:
            high = middle
    return low if low**n == value else None


def _factorial(value: Fraction) -> Fraction:
    if value.denominator > 1 or not 0 <= value <= _MAX_FACTORIAL:
        raise Refused("a factorial must be of an integer from 0 to 500")
    return Fraction(math.factorial(int(value)))


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator > 1 or k.denominator > 1 or not 0 <= k <= n <= 1000:
        raise Refused("a binomial coefficient must be of integers up to 1000")
    return Fraction(math.comb(int(n), int(k)))


_EXACT: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "frac": _divide,
    "mixed": lambda a, b: a + b,
    "neg": lambda a: -a,
    "pow": _power,
    "root": lambda value, degree: _root(value, degree),
    "factorial": _factorial,
    "binomial": _binomial,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
}
