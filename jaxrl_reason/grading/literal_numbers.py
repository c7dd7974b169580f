"""Numbers that are written as numbers, against those that need calculating."""

from fractions import Fraction

from jaxrl_reason.grading.answer_policy import AnswerPolicy
from jaxrl_reason.grading.answer_values import Refused, Tree, nodes


def literal_value(tree: Tree) -> Fraction | str | None:
    r"""The number that an expression spells, None if it needs calculating.

    Args:
      tree: the expression.

    Returns:
      The value of an integer, decimal, fraction of two numbers, mixed number, or
      `a \times 10^{n}`, each with a sign; the digits of a number in a base.

    Example:
      >>> from jaxrl_reason.grading.literal_numbers import literal_value
      >>> one, two = ("num", Fraction(1)), ("num", Fraction(2))
      >>> literal_value(("neg", ("frac", one, two)))
      Fraction(-1, 2)
      >>> literal_value(("add", one, two)) is None
      True
    """
    if tree[0] == "neg":
        inner = _unsigned(tree[1])
        return -inner if isinstance(inner, Fraction) else None
    return _unsigned(tree)


def _unsigned(tree: Tree) -> Fraction | str | None:
    operation = tree[0]
    if operation == "num":
        return tree[1]
    if operation == "raw":
        return tree[1]
    if operation in ("frac", "div"):
        above, below = (_signed(part) for part in tree[1:])
        return None if above is None or not below else above / below
    if operation == "mixed":
        return tree[1][1] + tree[2][1][1] / tree[2][2][1]
    if operation == "mul" and tree[1][0] == "num":
        scale = _power_of_ten(tree[2])
        return None if scale is None else tree[1][1] * scale
    return _power_of_ten(tree)


def _signed(tree: Tree) -> Fraction | None:
    """A number with or without a sign."""
    if tree[0] == "neg":
        return -tree[1][1] if tree[1][0] == "num" else None
    return tree[1] if tree[0] == "num" else None


def _power_of_ten(tree: Tree) -> Fraction | None:
    if tree[0] != "pow" or tree[1] != ("num", Fraction(10)):
        return None
    exponent = _signed(tree[2])
    if exponent is None or exponent.denominator > 1 or abs(exponent) > 1000:
        return None
    return Fraction(10) ** int(exponent)


def percentage(tree: Tree, policy: AnswerPolicy) -> Tree:
    """A number with a percent sign.

    Args:
      tree: what is before the sign.
      policy: says whether it divides by 100.

    Returns:
      The number.

    Raises:
      Refused: a fraction with a slash, or other than a number, is before the sign.

    Example:
      >>> percentage(("num", Fraction(10)), AnswerPolicy())
      ('num', Fraction(1, 10))
    """
    value = literal_value(tree)
    # 1/2% is half a percent or fifty.
    if not isinstance(value, Fraction) or any(n[0] == "div" for n in nodes(tree)):
        raise Refused("a percent sign must follow a number")
    return ("num", value / 100 if policy.percent == "fraction" else value)
