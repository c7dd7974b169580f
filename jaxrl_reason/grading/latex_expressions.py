"""Expressions in LaTeX, read by recursive descent."""

from fractions import Fraction

from jaxrl_reason.grading.answer_policy import AnswerPolicy
from jaxrl_reason.grading.answer_values import Refused, Tree
from jaxrl_reason.grading.latex_tokens import Token
from jaxrl_reason.grading.literal_numbers import literal_value
from jaxrl_reason.grading.rationals import canonical_number
from jaxrl_reason.grading.units import read_unit

MAX_DEPTH = 40
# What may follow a value that ends.
ENDS = frozenset(
    ("", ",", ";", ")", "]", "\\}", "}", "\\or", "&", "\\\\", "\\end")
    + ("=", "<", ">", "\\leq", "\\geq", "\\neq", "\\in")
)

_FUNCTIONS = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "ln", "log", "exp"),
}
_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta"),
    *("theta", "vartheta", "iota", "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma"),
    *("tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Xi"),
    *("Lambda", "Sigma", "Phi", "Psi", "Omega", "ell"),
}


class ExpressionReader:
    r"""Walks once over the tokens of expressions.

    sum:       products between + - \pm
    product:   factors between * / or side by side
    factor:    base with powers, ! and degrees

    Args:
      tokens: of the answer.
      policy: reads what has several meanings.
    """

    def __init__(self, tokens: list[Token], policy: AnswerPolicy) -> None:
        self.tokens, self.policy = tokens, policy
        self.at = self.depth = self.called = 0

    # Tokens.

    def token(self) -> Token:
        """The next token, an empty one at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else Token("")

    def peek(self) -> str:
        """The text of the next token if it is a sign; "number" and so on if not."""
        token = self.token()
        return token.text if token.kind == "sign" else token.kind

    def take(self) -> Token:
        """The next token, and moves past it."""
        token = self.token()
        self.at += 1
        return token

    def expect(self, sign: str) -> None:
        """Moves past a sign that must follow."""
        if self.peek() != sign:
            raise Refused(f"expected {sign!r}, got {self.token().text!r}")
        self.at += 1

    def enter(self) -> None:
        """One bracket deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused("the answer nests too deeply")

    def sum(self) -> Tree:
        r"""Products between +, - and \pm."""
        sign = self.take().text if self.peek() in ("+", "-", "\\pm", "\\mp") else "+"
        tree = self.product()
        if sign != "+":
            tree = (
                {"-": "neg", "\\pm": "plus_minus", "\\mp": "minus_plus"}[sign],
                tree,
            )
        while self.peek() in ("+", "-", "\\pm", "\\mp"):
            sign = self.take().text
            right = self.product()
            if sign in ("\\pm", "\\mp"):
                name = "plus_minus" if sign == "\\pm" else "minus_plus"
                tree = ("add", tree, (name, right))
            else:
                tree = ("add" if sign == "+" else "sub", tree, right)
        return tree

    def product(self) -> Tree:
        """Factors between * and /, or side by side."""
        tree = self.factor()
        while True:
            sign = self.peek()
            if sign in ("*", "/"):
                self.take()
                negative = self.peek() == "-"
                self.at += negative
                right = self.factor()
                right = ("neg", right) if negative else right
                tree = ("mul" if sign == "*" else "div", tree, right)
            elif self.starts_factor():
                tree = ("mul", tree, self.factor_beside())
            else:
                return tree

    def factor_beside(self) -> Tree:
        """A factor without a sign before it, which no number can be."""
        tree = self.factor()
        if tree[0] == "num" and self.tokens[self.at - 1].text != ")":
            raise Refused("a number beside another value")
        return tree

    def starts_factor(self) -> bool:
        """Whether a factor follows without a sign."""
        token = self.token()
        if token.kind == "text":
            return read_unit(token.text) is None and len(token.text) > 0
        if token.kind != "sign":
            return True
        known = ("(", "{", "\\frac", "\\sqrt", "\\binom", "\\infty", "\\lfloor")
        name = token.text[1:]
        return token.text in (*known, "\\lceil", "\\pi") or (
            token.text[:1] == "\\" and (name in _GREEK or name in _FUNCTIONS)
        )

    def factor(self) -> Tree:
        """A base with what follows it."""
        tree = self.base()
        while True:
            sign = self.peek()
            if sign == "^":
                self.take()
                tree = ("pow", tree, self.argument())
            elif sign == "!":
                self.take()
                if tree[0] == "factorial":
                    raise Refused("a double factorial")
                tree = ("factorial", tree)
            elif sign == "°" and (self.called or not self.ends_after_degree()):
                self.take()
                tree = ("mul", tree, ("div", ("const", "pi"), ("num", Fraction(180))))
            else:
                return tree

    def ends_after_degree(self) -> bool:
        """Whether the degree sign is the unit of the whole item."""
        after = self.tokens[self.at + 1 : self.at + 3]
        if after and after[0].text in ("C", "F"):
            after = after[1:]
        return not after or after[0].text in ENDS

    def base(self) -> Tree:
        """A number, a name, a command with its arguments or a group."""
        token = self.take()
        if token.kind == "number":
            return self.number(token)
        if token.kind == "letter":
            return self.name(token.text)
        if token.kind == "text":
            return self.text(token.text)
        word = token.text
        if word in ("(", "{", "|", "\\lfloor", "\\lceil"):
            return self.group(word)
        if word == "\\frac":
            above = self.argument()
            return ("frac", above, self.argument())
        if word == "\\binom":
            above = self.argument()
            return ("binomial", above, self.argument())
        if word == "\\sqrt":
            degree: Tree = ("num", Fraction(2))
            if self.peek() == "[":
                degree = self.group(self.take().text)
            return ("root", self.argument(), degree)
        if word == "\\infty" or word == "\\pi":
            return ("const", word[1:])
        if word[:1] == "\\" and word[1:] in _GREEK:
            return self.name(word[1:])
        if word[:1] == "\\" and word[1:] in _FUNCTIONS:
            return self.function(word[1:])
        raise Refused(f"the answer has {word!r} where a value should be")

    def number(self, token: Token) -> Tree:
        r"""A number: with a base, `52_8`, repeating, `0.\overline{3}`, or mixed."""
        if self.peek() == "_":
            self.take()
            base = self.argument()
            return ("raw", f"{token.text}_{_subscript(base)}")
        if self.peek() == "\\overline" and "." in token.text:
            self.take()
            digits = self.digits()
            places = len(token.text.partition(".")[2])
            period = Fraction(int(digits), 10**places * (10 ** len(digits) - 1))
            return ("num", (token.value or Fraction(0)) + period)
        if self.peek() == "\\frac" and token.text.isdigit():
            part = self.base()
            value = literal_value(part)
            numbers = part[1][0] == part[2][0] == "num"
            if numbers and isinstance(value, Fraction) and 0 < value < 1:
                if not self.policy.mixed_numbers:
                    raise Refused("a mixed number")
                return ("mixed", ("num", token.value), part)
            return ("mul", ("num", token.value), part)
        return ("num", token.value)

    def digits(self) -> str:
        """Digits in braces."""
        self.expect("{")
        token = self.take()
        self.expect("}")
        if not token.text.isdigit() or len(token.text) > 20:
            raise Refused("a period must be of digits")
        return token.text

    def name(self, name: str) -> Tree:
        """A variable with its subscript, or one of the constants e and i."""
        if self.peek() == "_":
            self.take()
            return ("name", f"{name}_{_subscript(self.argument())}")
        return ("const", name) if name in ("e", "i") else ("name", name)

    def text(self, inside: str) -> Tree:
        r"""\mathrm{i}, \mathbf{x}, \text{17}."""
        if len(inside) == 1 and inside.isalpha():
            return self.name(inside)
        value = canonical_number(inside)
        if value is not None and len(value) <= 64:
            return ("num", Fraction(value))
        raise Refused("a text beside a value")

    def group(self, opening: str) -> Tree:
        """A sum in brackets."""
        closing = {
            **{"(": ")", "[": "]", "{": "}", "|": "|"},
            **{"\\lfloor": "\\rfloor", "\\lceil": "\\rceil"},
        }[opening]
        self.enter()
        tree = self.sum()
        self.expect(closing)
        self.depth -= 1
        wrapped = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}.get(opening)
        return (wrapped, tree) if wrapped else tree

    def argument(self) -> Tree:
        r"""What follows \frac, \sqrt or ^: a group, a digit or a single token."""
        token = self.token()
        if self.peek() == "{":
            return self.group(self.take().text)
        before = self.tokens[self.at - 1].text
        if before == "^" and self.peek() == "-":
            self.take()
            return ("neg", self.argument())
        if before != "^" and token.text.isdigit() and len(token.text) > 1:  # \frac43
            rest = token.text[1:]
            self.tokens = [*self.tokens]
            self.tokens[self.at] = Token(rest, "number", Fraction(int(rest)))
            return ("num", Fraction(int(token.text[0])))
        called = before == "\\sqrt" and token.text == "("  # sqrt(2)
        if token.kind == "sign" and token.text[:1] != "\\" and not called:
            raise Refused("a command lacks its argument")
        self.enter()
        tree = self.base()
        self.depth -= 1
        return tree

    def function(self, name: str) -> Tree:
        """A function of its argument: a group, or the factors that follow."""
        power: Tree | None = None
        base: Tree | None = None
        while self.peek() in ("^", "_"):
            sign = self.take().text
            found = self.argument()
            power, base = (found, base) if sign == "^" else (power, found)
        if base is not None and name != "log":
            raise Refused("a function with a subscript")
        self.enter()
        self.called += 1
        if self.peek() in ("(", "{"):
            argument = self.factor() if self.peek() == "{" else self.base()
            if self.peek() == "°":
                raise Refused("degrees after a bracket")
        else:
            argument = self.factor()
            while self.starts_factor() and self.token().text[1:] not in _FUNCTIONS:
                if self.peek() == "(":
                    break
                argument = ("mul", argument, self.factor_beside())
        self.called -= 1
        self.depth -= 1
        if power == ("neg", ("num", Fraction(1))) and name in ("sin", "cos", "tan"):
            name, power = f"arc{name}", None
        tree: Tree = (name, argument)
        if name == "log":
            tree = ("log", argument, base or ("num", Fraction(10)))
        return tree if power is None else ("pow", tree, power)


def _subscript(tree: Tree) -> str:
    """A subscript as text."""
    return str(tree[1]) if tree[0] in ("num", "name", "const") else repr(tree)
