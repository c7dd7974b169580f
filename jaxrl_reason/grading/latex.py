r"""One form for the answers that mean the same: `\dfrac12`, `0.5`, `\left(1,2\right)`.

No algebra is done here. Two answers with equal forms are equal; for different forms
`compare` tells which are certainly different and which a computer algebra system must
decide.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from jaxrl_reason.grading.latex_text import Refused, simplified
from jaxrl_reason.grading.rationals import canonical_number

# An honest answer is far shorter; this bounds the time for any other.
MAX_CHARACTERS = 1000

_OPENING, _CLOSING = {"(", "[", "\\{", "{"}, {")", "]", "\\}", "}"}
_FRACTION = re.compile(
    r"(-?)([0-9]*)\\frac\{([+-]?[0-9.]+)\}\{([+-]?[0-9.]+)\}(%?)", re.ASCII
)
_ONE_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.")
_CHOICE = re.compile(r"\(?([A-Za-z])\)?")
_NAMED = re.compile(r"[A-Za-z](?:=|\\in(?![a-z]))")
_LOOKALIKE = str.maketrans({"−": "-", "π": "\\pi ", "°": "^\\circ "})


@dataclass(frozen=True)
class Form:
    """An answer in its normal form.

    Attributes:
      text: equal for answers of equal form; used for majority votes.
      number: whether the answer is a rational number, written as one.
      brackets: "()", "[]", "(]", "[)", or "{}" for sets and bare lists, whose order
        does not matter; "" for anything else.
      parts: the parts between the brackets.
    """

    text: str
    number: bool = False
    brackets: str = ""
    parts: tuple["Form", ...] = ()


def normal_form(text: str, *, leading_zeros: bool = False) -> Form | None:
    r"""The normal form of an answer.

    Layout (`\left`, `\,`, `$`), units (`\text{ cm}^2` after a value), degrees and the
    name in `x = 5` are dropped; `\dfrac12`, `0.5` and `1/2` are one number. A percent
    sign is not a unit: 10% is a tenth.

    Args:
      text: the answer, LaTeX or plain.
      leading_zeros: read 025 as 25; otherwise it is not a number.

    Returns:
      The form; None if the text is empty or too long, or has other than plain
      characters or unmatched brackets.

    Example:
      >>> normal_form(r"\dfrac12") == normal_form("0.5")
      True
      >>> normal_form(r"\left( 3, \frac{\pi}{2} \right)").text
      '(3,\\frac{\\pi}{2})'
    """
    text = text.strip(" \t\r\n*")
    number = canonical_number(text, leading_zeros=leading_zeros)
    if number is not None:
        return Form(number, number=True)
    text = text.translate(_LOOKALIKE) if len(text) <= MAX_CHARACTERS else ""
    if not text or not text.isascii() or not text.replace("\n", " ").isprintable():
        return None
    try:
        return _form(simplified(text), leading_zeros)
    except Refused:
        return None


def compare(gold: Form, answer: Form) -> bool | None:
    r"""Whether two forms are equal; None if only algebra could tell.

    A number is equal only to the same number: `17 \cdot 23` is not accepted for 391,
    and no decimal for a surd.

    Args:
      gold: the reference.
      answer: the answer to compare.

    Returns:
      True, False or None.

    Example:
      >>> forms = [normal_form(text) for text in ("391", r"17 \cdot 23")]
      >>> compare(*forms)
      False
    """
    if gold.text == answer.text:
        return True
    if gold.number or answer.number or gold.brackets != answer.brackets:
        return False
    if gold.text.startswith("\\text") or answer.text.startswith("\\text"):
        return False
    if not gold.brackets:
        return None
    if len(gold.parts) != len(answer.parts):
        return False
    if gold.brackets == "{}":  # numbers among them must agree in any order
        numbers = [sorted(p.text for p in f.parts if p.number) for f in (gold, answer)]
        surely = numbers[0] != numbers[1] or len(numbers[0]) == len(gold.parts)
        return False if surely else None
    verdicts = [compare(*pair) for pair in zip(gold.parts, answer.parts, strict=True)]
    return False if False in verdicts else None


def _form(text: str, leading_zeros: bool) -> Form:
    """Form of a simplified text."""
    if _NAMED.match(text) and text.count("=") <= 1:
        text = _NAMED.sub("", text, count=1)
    text = text.rstrip(".") if not text.endswith("\\.") else text
    if text.startswith("\\text{") and text.endswith("}") and text.count("{") == 1:
        return Form(f"\\text{{{_choice(text[6:-1])}}}")
    if re.fullmatch(r"\(?[A-Z]\)?|[A-Za-z]{3,}", text):
        return Form(f"\\text{{{_choice(text)}}}")  # \text{(C)} and C, \text{east}, east
    number = _number(text, leading_zeros)
    if number is not None:
        return Form(number, number=True)
    if not text:
        raise Refused
    return _bracketed(text, leading_zeros)


def _choice(words: str) -> str:
    """(C) and C are the same choice, East and east the same word."""
    match = _CHOICE.fullmatch(words)
    return match[1] if match else words.casefold()


def _number(text: str, leading_zeros: bool) -> str | None:
    r"""The canonical number of `1.5`, `\frac{3}{2}`, `1\frac{1}{2}`."""
    number = canonical_number(text, leading_zeros=leading_zeros)
    match = _FRACTION.fullmatch(text)
    if number is not None or match is None:
        return number
    minus, whole, above, below, percent = match.groups()
    top, bottom = canonical_number(above), canonical_number(below)
    if top is None or bottom is None or len(top) + len(bottom) + len(whole) > 200:
        return None
    if not Fraction(bottom):
        return None
    value = Fraction(top) / Fraction(bottom)
    if whole:
        if not 0 < value < 1:  # not a mixed number
            return None
        value += int(whole)
    value = -value if minus else value
    return str(value / 100 if percent else value)


def _bracketed(text: str, leading_zeros: bool) -> Form:
    """Tuple, interval, set or list, or else plain text."""
    tokens = _ONE_TOKEN.findall(text)
    depths = _depths(tokens)
    # Inside one pair of brackets every depth but the last is above zero.
    enclosed = tokens[0] in ("(", "[", "\\{") and 0 not in depths[:-1]
    brackets = ""
    if enclosed:
        brackets = (tokens[0] + tokens[-1]).replace("\\", "")
        tokens, depths = tokens[1:-1], [depth - 1 for depth in depths[1:-1]]
    parts = [""]
    for token, depth in zip(tokens, depths, strict=True):
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    if brackets in ("", "{}"):  # 1 \\pm x are two answers
        parts = [one for part in parts for one in _signs(part)]
    if len(parts) == 1 and not enclosed:
        return Form(text)
    if len(parts) == 1 and brackets == "()":
        return _form(parts[0], leading_zeros)
    forms = tuple(_form(part, leading_zeros) for part in parts)
    if brackets in ("", "{}"):
        brackets = "{}"
        forms = tuple(sorted(forms, key=lambda form: form.text))
    opening, closing = brackets[0], brackets[1]
    if brackets == "{}":
        opening, closing = "\\{", "\\}"
    inner = ",".join(form.text for form in forms)
    return Form(f"{opening}{inner}{closing}", brackets=brackets, parts=forms)


def _signs(part: str) -> list[str]:
    r"""Both values of a part with one \pm in it."""
    before, found, after = part.partition("\\pm")
    if not found or "\\pm" in after:
        return [part]
    after = after.strip(" ")
    return [f"{before}+{after}" if before else after, f"{before}-{after}"]


def _depths(tokens: list[str]) -> list[int]:
    """The number of open brackets after each token."""
    depth, depths = 0, []
    for token in tokens:
        depth += (token in _OPENING) - (token in _CLOSING)
        depths.append(depth)
        if depth < 0:
            raise Refused
    if depth:
        raise Refused
    return depths
