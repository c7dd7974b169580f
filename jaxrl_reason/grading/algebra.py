r"""Whether two expressions are equal: evaluated to 50 digits and more.

The expressions are trees of the closed grammar, evaluated with mpmath node by node.
Their variables get values that nobody can foresee, since these depend on both answers.
Before anything is calculated all sizes are bounded, so the time is too.
"""

import hashlib
import threading
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import mpmath

from jaxrl_reason.grading.answer_equality import equal_texts, exactly_same
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answer_values import Refused, Tree, names, nodes, rational

DIGITS = 50
# Digits of all numbers of an expression together, a power counted as often as it is.
MAX_HEIGHT = 2000
_MAX_WORK = 20_000  # digits times operations
_MAX_MAGNITUDE = 20_000  # bits of the exponent: values from 1e-6000 to 1e6000
# Of the variables at each point: small and large, of either sign, so that |x - 5| and
# 5 - x show that they differ.
_SCALES = tuple(map(Fraction, ("1", "-1", "40", "-40", "1/4", "-3000")))
_LOCAL = threading.local()


def algebraically_equal(
    gold: str, answer: str, policy: AnswerPolicy = USUAL
) -> bool | None:
    r"""Whether an answer equals the reference by algebra.

    Args:
      gold: the reference, LaTeX.
      answer: the answer.
      policy: reads what has several meanings.

    Returns:
      True or False; None if one of them is not in the grammar or exceeds a bound.

    Example:
      >>> algebraically_equal(r"2\sqrt{2}", r"\sqrt{8}")
      True
      >>> algebraically_equal(r"\pi", r"\pi + 10^{-99}")
      False
    """
    try:
        return equal_texts(gold, answer, policy, same_value)
    except Refused:
        return None


def same_value(gold: Tree, answer: Tree) -> bool | None:
    """Whether two expressions have the same value for all values of their variables.

    By arithmetic on fractions where it can tell; otherwise by values at points, which
    must agree to 50 digits beyond those of all numbers in the expressions. That is
    relative to the value, however small; whether a value or a difference is 0 shows by
    evaluating twice, the second time with twice the digits. At least one point must be
    in the domain of both, and both must be real at the same points.

    Args:
      gold: the reference.
      answer: the answer.

    Returns:
      True or False; None if an expression exceeds a bound, or has no value.

    Example:
      >>> x, two = ("name", "x"), ("num", Fraction(2))
      >>> same_value(("mul", two, x), ("add", x, x))
      True
      >>> same_value(x, ("root", ("pow", x, two), two))
      False
    """
    proportional = gold[0] == "zero_set"
    if not proportional:
        found = exactly_same(gold, answer)
        if found is not None:
            return found
    try:
        height = max(_height(gold), _height(answer))
        operations = sum(1 for tree in (gold, answer) for _ in nodes(tree))
        if height > MAX_HEIGHT or (DIGITS + height) * operations > _MAX_WORK:
            raise Refused("an expression is too large")
        precise = _Precise(DIGITS + 20 + height)
        variables = sorted(names(gold) | names(answer))
        points = _points(variables, repr((gold, answer)))
        if proportional:
            return _proportional(precise, gold[1], answer[1], points)
        return _agree(precise, gold, answer, points)
    except (Refused, RecursionError, OverflowError, MemoryError):
        return None


class _Precise:
    """Two precisions, P digits and 2 P; a number is a pair of its values in both."""

    def __init__(self, digits: int) -> None:
        if not hasattr(_LOCAL, "contexts"):  # their digits are a state
            _LOCAL.contexts = mpmath.mp.clone(), mpmath.mp.clone()
        self.contexts = _LOCAL.contexts
        for context, factor in zip(self.contexts, (1, 2), strict=True):
            context.dps = factor * digits
        self.small = mpmath.mpf(10) ** (-9 * digits // 10)

    def pair(self, tree: Tree, point: Mapping[str, Fraction]) -> tuple[Any, Any]:
        """The value of an expression; ZeroDivisionError outside of its domain."""
        low, high = (_Evaluation(c, point).value(tree) for c in self.contexts)
        # 1/0 where the 0 was rounded has no value that stays.
        if not self.is_zero((low, high)) and not self.near(low, high, high):
            raise ZeroDivisionError
        return low, high

    def is_refused(self, tree: Tree, point: Mapping[str, Fraction]) -> bool:
        """Whether the value at a point exceeds a bound."""
        try:
            self.pair(tree, point)
        except Refused:
            return True
        except (ZeroDivisionError, ValueError):
            return False
        return False

    def is_zero(self, pair: tuple[Any, Any]) -> bool:
        """Whether a number is nothing but rounding: more digits make it vanish."""
        low, high = pair
        return bool(abs(high) <= abs(low) * self.small)

    def near(self, first: Any, second: Any, scale: Any) -> bool:
        """Whether two numbers agree, relative to the scale."""
        return bool(abs(first - second) <= abs(scale) * self.small)

    def is_real(self, pair: tuple[Any, Any]) -> bool:
        """Whether a number has no imaginary part."""
        low, high = (mpmath.im(value) for value in pair)
        return self.is_zero((low, high)) or self.near(high, 0, pair[1])

    def equal(self, first: tuple[Any, Any], second: tuple[Any, Any]) -> bool:
        """Whether two numbers are the same."""
        difference = first[0] - second[0], first[1] - second[1]
        scale = max(abs(first[1]), abs(second[1]))
        return self.is_zero(difference) or self.near(difference[1], 0, scale)


def _agree(
    precise: _Precise,
    gold: Tree,
    answer: Tree,
    points: Iterable[Mapping[str, Fraction]],
) -> bool | None:
    """Equal at the points where both are real, or at all if they never are."""
    real, every = [], []
    for point in points:
        try:
            pairs = precise.pair(gold, point), precise.pair(answer, point)
        except (ZeroDivisionError, ValueError):  # outside the domain
            continue
        except Refused:
            if precise.is_refused(gold, point) and precise.is_refused(answer, point):
                continue  # e^(x^2) at a large x
            raise
        are_real = [precise.is_real(pair) for pair in pairs]
        if are_real[0] != are_real[1]:
            return False
        every.append(precise.equal(*pairs))
        real += every[-1:] if are_real[0] else []
    verdicts = real or every
    return all(verdicts) if verdicts else None


def _proportional(
    precise: _Precise,
    gold: Tree,
    answer: Tree,
    points: Iterable[Mapping[str, Fraction]],
) -> bool | None:
    """Whether answer / gold is the same number, not 0, at all points."""
    ratios = []
    for point in points:
        try:
            ratios.append(precise.pair(("div", answer, gold), point))
        except (ZeroDivisionError, ValueError):
            continue
    if len(ratios) < 2 or precise.is_zero(ratios[0]):
        return None if len(ratios) < 2 else False
    return all(precise.equal(ratios[0], ratio) for ratio in ratios)


def _points(variables: list[str], seed: str) -> list[dict[str, Fraction]]:
    """Values of the variables at each point."""
    if not variables:
        return [{}]
    points = []
    for index, scale in enumerate(_SCALES):
        point = {}
        for name in variables:
            key = f"{index} {name} {seed}".encode()
            drawn = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big")
            sign = -1 if index > 3 and drawn % 2 else 1
            point[name] = sign * scale * Fraction(drawn + 2**124, 2**127)  # 1/8 to 17/8
        points.append(point)
    return points


def _height(tree: Tree) -> int:
    """A bound on the decimal digits that the numbers of an expression need."""
    total = 0
    for node in nodes(tree):
        if node[0] == "num":
            value = node[1]
            bits = value.numerator.bit_length() + value.denominator.bit_length()
            total += bits * 30103 // 100_000 + 1
        elif node[0] == "pow":
            exponent = _rational_or_none(node[2])
            if exponent is None:
                continue
            if abs(exponent) > MAX_HEIGHT:
                raise Refused("an exponent is too large")
            total += int(abs(exponent)) * max(1, _height(node[1]))
        elif node[0] == "factorial":
            total += 1200
        elif node[0] == "binomial":
            total += 300
        if total > MAX_HEIGHT:
            raise Refused("the numbers of an expression are too large")
    return total


def _rational_or_none(tree: Tree) -> Fraction | None:
    return None if names(tree) else rational(tree)


class _Evaluation:
    """Values of expressions at one point, with the digits of a context."""

    def __init__(self, context: Any, point: Mapping[str, Fraction]) -> None:
        self.context, self.point = context, point

    def value(self, tree: Tree) -> Any:
        """The value of an expression."""
        found = self.context.convert(self.of_node(tree))
        size = abs(found)
        if not self.context.isfinite(size):
            raise ZeroDivisionError
        if size and abs(self.context.mag(size)) > _MAX_MAGNITUDE:
            raise Refused("a value is too large or too small")
        return found

    def of_node(self, tree: Tree) -> Any:
        """The value of a node from those of its parts."""
        context, operation = self.context, tree[0]
        if operation == "num":
            return self.fraction(tree[1])
        if operation == "name":
            return self.fraction(self.point[tree[1]])
        if operation == "const":
            return {"pi": +context.pi, "e": +context.e, "i": context.mpc(0, 1)}[tree[1]]
        if operation in ("factorial", "binomial", "floor", "ceil"):
            exact = rational(tree)  # of integers alone
            if exact is None:
                raise Refused(f"{operation} of other than an integer")
            return self.fraction(exact)
        if operation == "pow":
            return self.power(tree)
        parts = [self.value(part) for part in tree[1:]]
        if operation == "root":
            return self.root(*parts)
        if operation == "log":
            return context.log(parts[0]) / context.log(parts[1])
        if operation in _ARITHMETIC:
            return _ARITHMETIC[operation](*parts)
        if operation in _FUNCTIONS:
            return getattr(context, _FUNCTIONS[operation])(*parts)
        raise Refused(f"{operation} cannot be calculated")

    def fraction(self, value: Fraction) -> Any:
        """A fraction as a number of the context."""
        return self.context.mpf(value.numerator) / value.denominator

    def power(self, tree: Tree) -> Any:
        """A power, whose exponent is an integer, a fraction, or anything."""
        base, exponent = self.value(tree[1]), _rational_or_none(tree[2])
        if exponent is not None and exponent.denominator == 1:
            magnitude = abs(self.context.mag(base)) if base else 1
            if abs(exponent) * magnitude > _MAX_MAGNITUDE:
                raise Refused("a power is too large")
            return base ** int(exponent)
        if exponent is not None and exponent.denominator % 2 and _negative(base):
            root = -self.context.root(-base, exponent.denominator)
            return root ** int(exponent.numerator)
        power = self.value(tree[2])
        if base:
            self.bounded(power * self.context.log(base))
        return base**power

    def root(self, value: Any, degree: Any) -> Any:
        """A root; real for odd degrees."""
        if degree != int(degree.real) or not 2 <= degree.real <= 100:
            raise Refused("a root must be of degree 2 to 100")
        n = int(degree.real)
        if n % 2 and _negative(value):
            return -self.context.root(-value, n)
        return self.context.root(value, n)

    def bounded(self, exponent: Any) -> None:
        """Refuses exponents whose powers are too large."""
        if abs(exponent) > _MAX_MAGNITUDE / 2:
            raise Refused("a power is too large")


def _negative(value: Any) -> bool:
    return not value.imag and value.real < 0


_ARITHMETIC: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "frac": lambda a, b: a / b,
    "mixed": lambda a, b: a + b,
    "neg": lambda a: -a,
    "abs": abs,
}
_FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{name: name for name in ("sinh", "cosh", "tanh", "exp", "ln")},
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan"},
}
