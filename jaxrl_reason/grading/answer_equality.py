"""Whether two values are equal: one rule for each kind of value."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answer_values import (
    Collection,
    Named,
    Quantity,
    Refused,
    Relation,
    Tree,
    Value,
    Words,
    names,
    nodes,
    rational,
)
from jaxrl_reason.grading.latex_parser import parse_answer

# (reference, answer) -> equal; None if it cannot tell.
Same = Callable[[Tree, Tree], bool | None]


def exactly_same(gold: Tree, answer: Tree) -> bool | None:
    """Compares two expressions by arithmetic on fractions.

    Args:
      gold: the reference.
      answer: the answer.

    Returns:
      Whether they are equal; None if one is not rational, or not found to be.

    Example:
      >>> half, two = ("num", Fraction(1, 2)), ("num", Fraction(2))
      >>> exactly_same(half, ("pow", two, ("neg", ("num", Fraction(1)))))
      True
      >>> exactly_same(half, ("root", two, two)) is None
      True
    """
    if gold == answer:
        return True
    if names(answer) - names(gold):
        return False
    for tree in (gold, answer):
        if ("const", "infty") in nodes(tree):
            return False
    try:
        values = rational(gold), rational(answer)
    except Refused:
        return None
    return None if None in values else values[0] == values[1]


def equal(gold: Value, answer: Value, same: Same = exactly_same) -> bool | None:
    r"""Whether an answer is the reference.

    A number must be written as a number (`17 \cdot 23` is not 391). Units are compared
    if both have one. Tuples, intervals and matrices are equal part by part, sets, lists
    and unions in any order. The name in `x = 5` may be left out, another is wrong.
    Equations are equal up to a constant factor.

    Args:
      gold: the reference.
      answer: the answer.
      same: compares expressions.

    Returns:
      True or False; None if `same` could not tell and it matters.

    Example:
      >>> both = [parse_answer(text) for text in ("1, 2", r"\{2, 1.0\}")]
      >>> equal(*both)
      True
    """
    if isinstance(gold, Named) and isinstance(answer, Named):
        if gold.name != answer.name:
            return False
        return equal(gold.value, answer.value, same)
    if isinstance(gold, Named):
        return equal(gold.value, answer, same)
    if isinstance(answer, Named) and not isinstance(gold, Relation):
        return equal(gold, answer.value, same)
    if isinstance(gold, Quantity) and isinstance(answer, Quantity):
        return _quantities(gold, answer, same)
    if isinstance(gold, Collection) and isinstance(answer, Collection):
        return _collections(gold, answer, same)
    if isinstance(gold, Relation):
        return _relations(gold, answer, same)
    if isinstance(gold, Words) and isinstance(answer, Words):
        return gold.text == answer.text
    return False


def _quantities(gold: Quantity, answer: Quantity, same: Same) -> bool | None:
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.literal is not None or answer.literal is not None:
        if gold.literal is not None and answer.literal is not None:
            return gold.literal == answer.literal
        if gold.literal is not None:
            return False
    return same(gold.tree, answer.tree)


def _collections(gold: Collection, answer: Collection, same: Same) -> bool | None:
    if gold.kind != answer.kind or len(gold.parts) != len(answer.parts):
        return False
    if gold.kind in ("{}", "union"):
        return _in_any_order(gold.parts, answer.parts, same)
    return _all(
        equal(*pair, same) for pair in zip(gold.parts, answer.parts, strict=True)
    )


def _in_any_order(
    gold: Sequence[Value], answer: Sequence[Value], same: Same
) -> bool | None:
    """Whether each part has a partner; equality is transitive, so any partner does."""
    named = len({part.name for part in gold if isinstance(part, Named)}) > 1
    if named and not all(isinstance(part, Named) for part in answer):
        return False
    left, unsure = list(answer), False
    for part in gold:
        verdicts = [equal(part, other, same) for other in left]
        if True in verdicts:
            del left[verdicts.index(True)]
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _relations(gold: Relation, answer: Value, same: Same) -> bool | None:
    """An equation or inequality of the same sides, or of a multiple of them."""
    if isinstance(answer, Named) and isinstance(answer.value, Quantity):
        answer = Relation(("=",), (("name", answer.name), answer.value.tree))
    if not isinstance(answer, Relation) or len(gold.signs) != len(answer.signs):
        return False
    straight = _sides(gold, answer, same)
    turned = Relation(
        tuple(_TURNED[sign] for sign in reversed(answer.signs)), answer.sides[::-1]
    )
    backwards = _sides(gold, turned, same)
    if True in (straight, backwards):
        return True
    if gold.signs == ("=",) == answer.signs:
        # f = 0 and g = 0 are the same if g is a constant times f.
        first, second = (("sub", *relation.sides) for relation in (gold, answer))
        if names(first) == names(second):
            return same(("zero_set", first), ("zero_set", second))
    return None if None in (straight, backwards) else False


_TURNED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


def _sides(gold: Relation, answer: Relation, same: Same) -> bool | None:
    if gold.signs != answer.signs:
        return False
    return _all(same(*pair) for pair in zip(gold.sides, answer.sides, strict=True))


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    found = list(verdicts)
    return False if False in found else None if None in found else True


def equal_texts(
    gold: str, answer: str, policy: AnswerPolicy = USUAL, same: Same = exactly_same
) -> bool | None:
    r"""Whether the text of an answer is the reference.

    Commas are read in every way that the answer allows: `3,125` is 3125 and also a list
    of two, and right if the reference is either.

    Args:
      gold: the reference.
      answer: the answer.
      policy: reads what has several meanings.
      same: compares expressions.

    Returns:
      True or False; None if `same` could not tell.

    Raises:
      Refused: one of the two is not in the grammar.

    Example:
      >>> equal_texts("3, 125", "125, 3"), equal_texts("3, 125", "3125")
      (True, False)
    """
    reference = read_reference(gold, policy)
    verdicts = [equal(reference, value, same) for value in readings(answer, policy)]
    return True if True in verdicts else None if None in verdicts else False


def read_reference(gold: str, policy: AnswerPolicy = USUAL) -> Value:
    """The value of a reference, whose commas are read in one way.

    Args:
      gold: the text.
      policy: reads what has several meanings.

    Returns:
      The value: `3,125` is a number, and `(3,125)` a pair where a pair can be read.

    Raises:
      Refused: it is not in the grammar.

    Example:
      >>> read_reference("(1,000, 2)").parts[0].literal
      Fraction(1000, 1)
    """
    try:
        return parse_answer(gold, policy)
    except Refused:
        return parse_answer(gold, policy, grouping="loose")


def readings(answer: str, policy: AnswerPolicy = USUAL) -> list[Value]:
    """The values that an answer may have, with commas read in every way.

    Args:
      answer: the text.
      policy: reads what has several meanings.

    Returns:
      One or more.

    Raises:
      Refused: there is none.

    Example:
      >>> len(readings("3,125")), len(readings("1/2"))
      (2, 1)
    """
    found: list[Value] = []
    refusal = Refused("the answer has no value")
    for grouping in ("tight", "never", "loose") if "," in answer else ("tight",):
        try:
            value = parse_answer(answer, policy, grouping=grouping)
        except Refused as error:
            refusal = error
            continue
        if value not in found:
            found.append(value)
    if not found:
        raise refusal
    return found


def is_number(value: Value) -> bool:
    """Whether a value is a single number, written as one.

    Args:
      value: any value.

    Returns:
      True for a `Quantity` that is a literal number.

    Example:
      >>> is_number(parse_answer("1/2")), is_number(parse_answer("1, 2"))
      (True, False)
    """
    return isinstance(value, Quantity) and isinstance(value.literal, Fraction)
