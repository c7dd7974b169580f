"""LaTeX or plain text of an answer as tokens, without layout."""

import re
from dataclasses import dataclass
from fractions import Fraction

from jaxrl_reason.grading.answer_values import Refused

# An honest answer is far shorter; these bound the time for any other.
MAX_CHARACTERS = 1000
MAX_TOKENS = 400
_MAX_EXPONENT = 1000

_ASCII = {
    **{"−": "-", "×": "\\times ", "·": "\\cdot ", "÷": "\\div ", "±": "\\pm "},
    **{"π": "\\pi ", "°": "^\\circ ", "∞": "\\infty ", "√": "\\sqrt ", "∪": "\\cup "},
    **{"≤": "\\leq ", "≥": "\\geq ", "≠": "\\neq ", "∈": "\\in ", "²": "^2", "³": "^3"},
}
_LOOKALIKE = str.maketrans(_ASCII)
_RENAMED = {
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac"), "\\frac"),
    **dict.fromkeys(("\\dbinom", "\\tbinom", "\\choose"), "\\binom"),
    **{"\\le": "\\leq", "\\ge": "\\geq", "\\ne": "\\neq", "\\%": "%", "\\degree": "°"},
    **{"\\leqslant": "\\leq", "\\geqslant": "\\geq", "\\lt": "<", "\\gt": ">"},
    **{"\\lbrace": "\\{", "\\rbrace": "\\}", "\\ast": "*", "\\times": "*"},
    **{"\\cdot": "*", "\\div": "/", "\\lvert": "|", "\\rvert": "|", "\\vert": "|"},
}
_LAYOUT = {
    *("\\left", "\\right", "\\!", "\\,", "\\;", "\\:", "\\ ", "\\quad", "\\qquad"),
    *("\\displaystyle", "\\textstyle", "\\(", "\\)", "\\[", "\\]", "~", "$", "\\big"),
    *("\\Big", "\\limits", "\\bigl", "\\bigr"),
}
_TEXT = {
    *("\\text", "\\textbf", "\\textit", "\\textrm", "\\mbox", "\\mathrm", "\\mathbf"),
    *("\\mathit", "\\mathsf", "\\operatorname", "\\rm", "\\fbox", "\\boldsymbol"),
    *("\\boxed", "\\emph", "\\bf", "\\mathbb"),
}
# Names that are written without their backslash in plain text.
_PLAIN = {
    **{name: f"\\{name}" for name in ("pi", "sin", "cos", "tan", "ln", "log", "sqrt")},
    **{"or": "\\or", "and": "\\or", "infty": "\\infty", "infinity": "\\infty"},
}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![0-9.]))?"
_GROUPED = {
    "never": _NUMBER,
    "tight": rf"[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?|{_NUMBER}",
    "loose": rf"[0-9]{{1,3}}(?:, ?[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?|{_NUMBER}",
}
_TOKENS = {
    grouping: re.compile(
        rf"(?P<number>{number})|\\[a-zA-Z]+|\\.|[A-Za-z]+|\s+|.", re.DOTALL
    )
    for grouping, number in _GROUPED.items()
}
# 10,\!080 and 10{,}080 typeset a comma inside a number, 10\,080 a gap.
_COMMA = re.compile(r", *\\! *|\{,\}")
_GAP = re.compile(r"(?<=[0-9])(?:\\[,! ;:]|~)(?=[0-9]{3}(?![0-9]))")
_DEGREES = re.compile(r"\^ *(?:\{ *\\circ *\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])")


@dataclass(frozen=True)
class Token:
    """One token.

    Attributes:
      text: the command, letter or sign; the digits of a number; the inside of a text.
      kind: "number", "letter", "text" or "sign".
      value: of a number.
    """

    text: str
    kind: str = "sign"
    value: Fraction | None = None


# What joins the parts of a list.
_JOINS = {
    word: Token("\\or") for word in ("or", "and", ", or", ", and", ",or", ",and", ",")
}


def tokens_of(
    text: str, *, grouping: str = "tight", leading_zeros: bool = False
) -> list[Token]:
    r"""The tokens of an answer.

    Args:
      text: LaTeX or plain text of bounded length.
      grouping: whether a comma and three digits continue a number: "never"; "tight",
        without a space; "loose", with or without one.
      leading_zeros: whether 025 is a number.

    Returns:
      The tokens; `\dfrac`, `\times` and the like under one name.

    Raises:
      Refused: there are too many tokens, or the text has other than plain characters.

    Example:
      >>> [token.text for token in tokens_of(r"\left(\dfrac12, 1.5\right)")]
      ['(', '\\frac', '12', ',', '1.5', ')']
    """
    text = text.translate(_LOOKALIKE)
    if not text.isascii() or not re.sub(r"[\n\t]", " ", text).isprintable():
        raise Refused("the answer has other than plain characters")
    text = _GAP.sub(",", _DEGREES.sub("°", _COMMA.sub(",", text)))
    found: list[Token] = []
    matches = _matches(text, grouping)
    at = 0
    while at < len(matches):
        match = matches[at]
        word = _RENAMED.get(match[0], match[0])
        at += 1
        if word in _TEXT:
            inside, at = _group(matches, at)
            found.append(_JOINS.get(inside.casefold(), Token(inside, "text")))
        elif match["number"]:
            found.append(_number(word, leading_zeros))
        elif word.isalpha() and word.isascii():
            found += _letters(word)
        elif not word.isspace() and word not in _LAYOUT:
            found.append(Token(word))
    if len(found) > MAX_TOKENS:
        raise Refused("the answer is too long")
    return found


def _matches(text: str, grouping: str) -> list[re.Match[str]]:
    """The matches from left to right; "tight" groups digits only outside brackets."""
    found, at, depth = [], 0, 0
    while at < len(text):
        inside = depth > 0 and grouping == "tight"
        match = _TOKENS["never" if inside else grouping].match(text, at)
        assert match is not None  # the last alternative is any character
        depth += (match[0] in ("(", "[", "\\{")) - (match[0] in (")", "]", "\\}"))
        found.append(match)
        at = match.end()
    return found


def _group(matches: list[re.Match[str]], at: int) -> tuple[str, int]:
    r"""The inside of the braces after \text, and where the rest begins."""
    while at < len(matches) and matches[at][0].isspace():
        at += 1
    if at < len(matches) and matches[at][0] != "{":  # \mathbf x
        return matches[at][0], at + 1
    depth = 0
    inside: list[str] = []
    for end in range(at, len(matches)):
        word = matches[end][0]
        depth += (word == "{") - (word == "}")
        if not depth:
            return "".join(inside[1:]).strip(), end + 1
        inside.append(word)
    raise Refused("a brace is not closed")


def _number(word: str, leading_zeros: bool) -> Token:
    digits = word.replace(",", "").replace(" ", "")
    mantissa, _, exponent = digits.lower().partition("e")
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > _MAX_EXPONENT):
        raise Refused("an exponent is too large")
    whole, _, decimals = mantissa.partition(".")
    if len(whole) > 1 and whole[0] == "0" and not leading_zeros:
        raise Refused("a number has a leading zero")
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    value *= Fraction(10) ** int(exponent or 0)
    return Token(digits, "number", value)


def _letters(word: str) -> list[Token]:
    """A name that is known without its backslash, or else single letters."""
    if word in _PLAIN:
        return [Token(_PLAIN[word])]
    return [Token(letter, "letter") for letter in word]
