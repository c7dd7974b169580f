"""All ways to combine the numbers of a Countdown puzzle, in one fixed order."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to combine all numbers, step by step.

    Attributes:
      steps: the steps in order, such as "3 + 4 = 7".
      expression: the same as one expression, with each inner step in brackets.
      value: its value.
    """

    steps: tuple[str, ...]
    expression: str
    value: int


class _Term:
    """An available number: its value, its steps and its parts.

    `parts` are the terms of the last operation, of all of them for a chain of sums or
    of products; `key` is equal for terms that differ only in the order of such parts.
    """

    __slots__ = ("key", "operator", "parts", "text", "value")

    def __init__(self, value: int, text: str, operator: str, parts: list[str]) -> None:
        self.value = value
        self.text = text
        self.operator = operator
        self.parts = parts
        self.key = f"({operator.join(parts)})" if operator else parts[0]


@lru_cache(maxsize=1024)
def attempts(numbers: tuple[int, ...], max_value: int) -> tuple[Attempt, ...]:
    """Every way to use each number once with all values integers in 0..max_value.

    The order is fixed by the positions of the numbers: first the first two numbers,
    their sum before their product, difference and quotient, and so on. Ways that differ
    only in the order of a sum's or a product's terms count once. A fixed order matters:
    with tries in random order a greedy policy repeats one try until the length limit.

    Args:
      numbers: the puzzle's numbers, two or more.
      max_value: the largest value allowed, including steps.

    Returns:
      The attempts; several may have the same value.

    Example:
      >>> [a.expression for a in attempts((2, 8), 50)]
      ['2 + 8', '2 * 8', '8 - 2', '8 / 2']
    """
    terms = tuple(_Term(number, str(number), "", [str(number)]) for number in numbers)
    found: dict[str, Attempt] = {}
    for key, attempt in _search(terms, (), max_value):
        found.setdefault(key, attempt)
    return tuple(found.values())


def _search(
    terms: tuple[_Term, ...], steps: tuple[str, ...], max_value: int
) -> Iterator[tuple[str, Attempt]]:
    """Combines two terms in every way, then recurses with the result in their place."""
    if len(terms) == 1:
        term = terms[0]
        yield term.key, Attempt(steps, term.text, term.value)
        return
    for i, left in enumerate(terms):
        for j in range(i + 1, len(terms)):
            rest = (*terms[:i], *terms[i + 1 : j], *terms[j + 1 :])
            for step, result in _combine(left, terms[j]):
                if result.value <= max_value:
                    # The result comes first: the next step continues with it.
                    yield from _search((result, *rest), (*steps, step), max_value)


def _combine(left: _Term, right: _Term) -> Iterator[tuple[str, _Term]]:
    """Sum, product, difference and quotient, if integer and not negative."""
    yield _joined(left, "+", right, left.value + right.value)
    yield _joined(left, "*", right, left.value * right.value)
    if left.value >= right.value:
        yield _joined(left, "-", right, left.value - right.value)
    if right.value > left.value:
        yield _joined(right, "-", left, right.value - left.value)
    if right.value and left.value % right.value == 0:
        yield _joined(left, "/", right, left.value // right.value)
    elif left.value and right.value % left.value == 0:
        yield _joined(right, "/", left, right.value // left.value)


def _joined(left: _Term, operator: str, right: _Term, value: int) -> tuple[str, _Term]:
    """The step as text, and its result."""
    # There are few different steps but very many attempts: share their strings.
    step = sys.intern(f"{left.value} {operator} {right.value} = {value}")
    text = f"{_bracketed(left.text)} {operator} {_bracketed(right.text)}"
    if operator in "-/":
        parts = [left.key, right.key]
    else:
        parts = sorted(_parts(left, operator) + _parts(right, operator))
    return step, _Term(value, text, operator, parts)


def _parts(term: _Term, operator: str) -> list[str]:
    """The terms of a nested sum (product), which the outer one absorbs."""
    return term.parts if term.operator == operator else [term.key]


def _bracketed(text: str) -> str:
    # Always with brackets: one rule for the model to learn.
    return f"( {text} )" if " " in text else text
