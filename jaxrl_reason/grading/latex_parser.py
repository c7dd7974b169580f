r"""From the text of an answer to its value, by recursive descent.

answer:    items between `,` `;` `\text{or}` `\text{and}`; several are a list
item:      sides between = < > \leq \geq \neq \in; a side is a union or a quantity
quantity:  sum, percent sign, unit
sum:       products between + - \pm
product:   factors between * / or side by side
factor:    base with powers, ! and degrees
"""

import re
from fractions import Fraction

from jaxrl_reason.grading.answer_forms import both_signs, listed, related
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answer_values import (
    Collection,
    Quantity,
    Refused,
    Unit,
    Value,
    Words,
)
from jaxrl_reason.grading.latex_expressions import ENDS, ExpressionReader
from jaxrl_reason.grading.latex_tokens import MAX_CHARACTERS, Token, tokens_of
from jaxrl_reason.grading.literal_numbers import literal_value, percentage
from jaxrl_reason.grading.rationals import canonical_number
from jaxrl_reason.grading.units import join_units, read_unit

_SIGNS = {
    **{"=": "=", "<": "<", ">": ">", "\\leq": "<=", "\\geq": ">=", "\\neq": "!="},
    "\\in": "in",
}
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",)}
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_CALLED = re.compile(r"\s*([A-Za-z])\s*\(\s*[A-Za-z]\s*\)\s*=")
_MATRICES = ("matrix", "pmatrix", "bmatrix")


def parse_answer(
    text: str, policy: AnswerPolicy = USUAL, *, grouping: str = "tight"
) -> Value:
    r"""The value of an answer.

    Args:
      text: LaTeX or plain text.
      policy: reads what has several meanings.
      grouping: whether commas group digits, see `tokens_of`.

    Returns:
      The value.

    Raises:
      Refused: the text is not in the grammar.

    Example:
      >>> parse_answer(r"\dfrac12").literal
      Fraction(1, 2)
      >>> parse_answer(r"x=2 \text{ or } x=-2").name
      'x'
      >>> parse_answer(r"(1, 2]").kind
      '(]'
    """
    text = text.strip(" \t\r\n*").strip("$").strip(" \t\r\n*")
    number = canonical_number(text, leading_zeros=policy.leading_zeros)
    if number is not None and len(number) > 64:
        return Quantity(("raw", number), literal=number)
    if len(text) > MAX_CHARACTERS:
        raise Refused("the answer is too long")
    if not text.endswith("\\."):
        text = text.rstrip(".")
    if _WORDS.fullmatch(text) and _is_word(text):
        return Words(" ".join(text.casefold().split()))
    text = _CALLED.sub(r"\1=", text, count=1)
    found = tokens_of(text, grouping=grouping, leading_zeros=policy.leading_zeros)
    if len(found) == 1 and found[0].kind == "text":
        return _text_alone(found[0].text, policy)
    parser = _AnswerReader(found, policy)
    value = parser.items()
    if parser.peek():
        raise Refused(f"the answer does not go on with {parser.peek()!r}")
    return value


def _is_word(text: str) -> bool:
    """Whether letters are a word, as `east`, and not a product, as `p-q` or `sin x`."""
    runs = re.findall("[a-z]+", text.casefold())
    known = {"sqrt", "sin", "cos", "tan", "ln", "log", "pi", "infinity", "infty"}
    return runs[0] not in known and (runs == ["no"] or max(map(len, runs)) > 2)


def _text_alone(inside: str, policy: AnswerPolicy) -> Value:
    r"""The value of \text{...}: a choice, a word, or what any answer may be."""
    choice = re.fullmatch(r"\(?([A-Za-z])\)?\.?", inside)
    if choice:
        kind = "const" if choice[1] in "ei" else "name"
        return Quantity((kind, choice[1]))
    if _WORDS.fullmatch(inside):
        return Words(" ".join(inside.casefold().split()))
    if "\\" in inside:
        raise Refused("a command inside a text")
    return parse_answer(inside, policy)


class _AnswerReader(ExpressionReader):
    """Adds what is around expressions: signs, units, brackets and lists."""

    def separator(self) -> bool:
        r"""Moves past `,`, `;`, \text{or}, or a comma and an "and" together."""
        start = self.at
        if self.peek() in (",", ";"):
            self.at += 1
        if self.peek() == "\\or":
            self.at += 1
        return self.at > start

    def items(self) -> Value:
        """Everything up to the end: one item, or a list."""
        found = self.several()
        if len(found) == 1:
            return found[0]
        return listed(found)

    def several(self) -> list[Value]:
        r"""Items up to the end or to a closing bracket; those with \pm are two."""
        found = both_signs(self.item())
        while self.separator():
            found += both_signs(self.item())
        return found

    def item(self) -> Value:
        """Sides and the signs between them."""
        sides, signs = [self.union()], []
        while self.peek() in _SIGNS:
            signs.append(_SIGNS[self.take().text])
            sides.append(self.union())
        if not signs:
            return sides[0]
        return related(sides, signs, self.policy)

    def union(self) -> Value:
        """A quantity, or collections between cups."""
        parts = [self.quantity()]
        while self.peek() == "\\cup":
            self.take()
            parts.append(self.quantity())
        if len(parts) == 1:
            return parts[0]
        if not all(isinstance(part, Collection) for part in parts):
            raise Refused("a union must be of sets")
        return Collection("union", tuple(parts))

    def quantity(self) -> Value:
        """A collection, or a sum with its percent sign and unit."""
        first = self.token()
        if first.kind == "text" and read_unit(first.text) is None:
            words = _WORDS.fullmatch(first.text)
            after = self.tokens[self.at + 1 : self.at + 2]
            ends = not after or (after[0].kind == "sign" and after[0].text in ENDS)
            if words and len(first.text) > 1 and ends:
                self.take()
                return Words(" ".join(first.text.casefold().split()))
        if self.peek() == "\\begin":
            return self.matrix()
        if self.peek() == "\\{" or self.opens_collection():
            return self.collection()
        dollars: Unit = ()
        if self.peek() == "\\$":
            self.take()
            dollars = (("dollar", 1),)
        negative = self.peek() == "-" and self.tokens[self.at + 1 : self.at + 2]
        if negative and negative[0] == Token("\\$"):  # -\$5
            self.tokens = [*self.tokens]
            del self.tokens[self.at + 1]
            dollars = (("dollar", 1),)
        tree = self.sum()
        if self.peek() == "%":
            self.take()
            tree = percentage(tree, self.policy)
        unit = dollars or self.unit()
        return Quantity(tree, literal_value(tree), unit)

    def unit(self) -> Unit:
        """The unit after a value, empty if there is none."""
        parts: list[tuple[Unit, int]] = []
        if self.peek() == "°":
            self.take()
            unit: Unit = (("degree", 1),)
            if self.token().text in ("C", "F"):
                scale = "celsius" if self.take().text == "C" else "fahrenheit"
                unit = ((scale, 1),)
            return unit
        if self.peek() == "\\$":
            self.take()
            return (("dollar", 1),)
        sign = 1
        while self.token().kind == "text":
            words = self.take().text
            if self.peek() == "^":  # of the last word
                self.take()
                words += f"^{self.unit_power()}"
            found = read_unit(words)
            if found is None:
                raise Refused("a word beside a value is not a unit")
            parts.append((found, sign))
            if self.peek() not in ("/", "*"):
                break
            sign = -1 if self.take().text == "/" else 1
            if self.token().kind != "text":
                raise Refused("a unit does not go on")
        return join_units(parts)

    def unit_power(self) -> int:
        """The exponent of a unit."""
        value = literal_value(self.argument())
        if not isinstance(value, Fraction) or value not in range(-9, 10):
            raise Refused("the power of a unit must be an integer")
        return int(value)

    def opens_collection(self) -> bool:
        """Whether the next bracket holds several values and not an expression."""
        if self.peek() not in _CLOSING:
            return False
        depth = 0
        for token in self.tokens[self.at :]:
            if token.kind != "sign":
                continue
            depth += (token.text in _CLOSING) - (token.text in (")", "]", "\\}"))
            if not depth:
                return False
            if depth == 1 and token.text in (",", ";", "\\or"):
                return True
        raise Refused("a bracket is not closed")

    def collection(self) -> Value:
        """Values in brackets."""
        opening = self.take().text
        self.enter()
        parts = [] if self.peek() == "\\}" else self.several()
        closing = self.take().text
        if closing not in _CLOSING[opening]:
            raise Refused("a bracket is not closed")
        self.depth -= 1
        return Collection((opening + closing).replace("\\", ""), tuple(parts))

    def matrix(self) -> Value:
        """Rows between double backslashes."""
        self.take()
        name = self.environment()
        if name not in _MATRICES:
            raise Refused(f"no matrix: {name!r}")
        self.enter()
        rows: list[Value] = []
        while self.peek() != "\\end":
            row = [self.item()]
            while self.peek() == "&":
                self.take()
                row.append(self.item())
            rows.append(Collection("row", tuple(row)))
            if self.peek() != "\\\\":
                break
            self.take()
        self.expect("\\end")
        if self.environment() != name:
            raise Refused("a matrix is not closed")
        self.depth -= 1
        return Collection("matrix", tuple(rows))

    def environment(self) -> str:
        """The name in braces."""
        self.expect("{")
        letters = ""
        while self.token().kind == "letter":
            letters += self.take().text
        self.expect("}")
        return letters
