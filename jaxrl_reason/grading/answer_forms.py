r"""Values that are put together from others: lists, assignments, intervals, \pm."""

from jaxrl_reason.grading.answer_policy import AnswerPolicy
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
)
from jaxrl_reason.grading.literal_numbers import literal_value


def both_signs(value: Value) -> list[Value]:
    r"""Both values of an item with one \pm in it."""
    if isinstance(value, Named):
        return [Named(value.name, one) for one in both_signs(value.value)]
    trees: tuple[Tree, ...] = (value.tree,) if isinstance(value, Quantity) else ()
    if isinstance(value, Relation):
        trees = value.sides
    signs = [
        node
        for tree in trees
        for node in nodes(tree)
        if node[0] in ("plus_minus", "minus_plus")
    ]
    if not signs:
        return [value]
    if len(signs) > 1 or not isinstance(value, Quantity):
        raise Refused("several \\pm")
    both = [_with_sign(value.tree, plus) for plus in (True, False)]
    return [Quantity(tree, literal_value(tree), value.unit) for tree in both]


def _with_sign(tree: Tree, plus: bool) -> Tree:
    if tree[0] in ("plus_minus", "minus_plus"):
        return tree[1] if plus == (tree[0] == "plus_minus") else ("neg", tree[1])
    parts = (
        _with_sign(part, plus) if isinstance(part, tuple) else part for part in tree[1:]
    )
    return (tree[0], *parts)


def listed(parts: list[Value]) -> Value:
    """A list; x = 1, x = 2 and x = 1, 2 are two values of x."""
    first = parts[0]
    if isinstance(first, Named) and not isinstance(first.value, Collection):
        same = [isinstance(part, Named) and part.name == first.name for part in parts]
        bare = [isinstance(part, (Quantity, Words)) for part in parts[1:]]
        if all(same) or all(bare):
            values = (part.value if isinstance(part, Named) else part for part in parts)
            return Named(first.name, Collection("{}", tuple(values)))
    return Collection("{}", tuple(parts))


def related(sides: list[Value], signs: list[str], policy: AnswerPolicy) -> Value:
    """An assignment, a membership, an interval or another relation."""
    if signs == ["="] and _name_of(sides[1]) and not _name_of(sides[0]):
        sides = sides[::-1]  # 5 = x
    left = sides[0]
    if isinstance(left, Quantity) and left.unit:
        raise Refused("a unit on the left of a sign")
    name = _name_of(left)
    if signs == ["in"]:
        if not name or not isinstance(sides[1], Collection):
            raise Refused("a membership must be of a name in a set")
        return Named(name, sides[1])
    if signs == ["="] and name and name not in _names_of(sides[1]):
        return Named(name, sides[1])
    trees = []
    for side in sides:
        if not isinstance(side, Quantity) or side.unit:
            raise Refused("an equation must be of expressions")
        trees.append(side.tree)
    if "in" in signs:
        raise Refused("a membership must be of a name in a set")
    relation = Relation(tuple(signs), tuple(trees))
    if policy.inequality_as_interval:
        return _as_interval(relation) or relation
    return relation


def _name_of(value: Value) -> str:
    """The name of a variable alone; empty for anything else."""
    alone = isinstance(value, Quantity) and value.tree[0] == "name" and not value.unit
    return value.tree[1] if isinstance(value, Quantity) and alone else ""


def _names_of(value: Value) -> frozenset[str]:
    if isinstance(value, Quantity):
        return names(value.tree)
    if isinstance(value, Collection):
        return frozenset().union(*map(_names_of, value.parts))
    return frozenset()


_INFINITY: Tree = ("const", "infty")
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _as_interval(relation: Relation) -> Value | None:
    r"""The interval of `x < 5` or `-2 \leq x \leq 7`; None for any other relation."""
    signs, sides = relation.signs, relation.sides
    if any(sign not in _FLIPPED for sign in signs) or len(sides) > 3:
        return None
    if signs[0] in (">", ">="):  # from small to large
        signs, sides = tuple(_FLIPPED[s] for s in reversed(signs)), sides[::-1]
    if any(sign in (">", ">=") for sign in signs):
        return None
    if len(sides) == 2:
        if sides[0][0] == "name":
            sides, signs = (("neg", _INFINITY), *sides), ("<", *signs)
        elif sides[1][0] == "name":
            sides, signs = (*sides, _INFINITY), (*signs, "<")
    if len(sides) != 3 or sides[1][0] != "name":
        return None
    name = sides[1][1]
    if name in names(sides[0]) | names(sides[2]):
        return None
    brackets = ("[" if signs[0] == "<=" else "(") + ("]" if signs[1] == "<=" else ")")
    ends = (Quantity(tree, literal_value(tree)) for tree in (sides[0], sides[2]))
    return Named(name, Collection(brackets, tuple(ends)))
