"""Kinds of questions that a training set may leave out, each a small test of a row."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

# (question, answer, row) -> whether it is of this kind.
Filter = Callable[[str, str, Mapping[str, Any]], bool]

_URL = re.compile(r"(?i)\b(?:https?|ftp)://|\bwww\.\w")
_IMAGE = re.compile(
    r"(?i)!\[[^\]\n]*\]\(|<img\b|<image\b|\\includegraphics|\[asy\]|\\begin\{tikzpicture"
    r"|\bdata:image/"
)
_FIGURE = re.compile(
    r"(?i)\b(?:in|on|from|see|of|to) the (?:\w+ )?"
    r"(?:figure|diagram|picture|image|graph (?:below|above|shown))\b"
    r"|\b(?:figure|diagram|picture|graph|image)s? "
    r"(?:below|above|shown|at (?:the )?(?:left|right))\b"
    r"|\bas (?:shown|pictured|depicted)\b"
)
_PROOF = re.compile(
    r"(?i)(?:^|[.?!:,;]\s*|\band\s+)(?:prove|show|verify|demonstrate)\s+that\b"
    r"|(?:^|[.?!]\s*)prove\b"
)
_CHOICES = re.compile(r"(?:^|[\s(\\{])\(?([A-D])[).:}\]]", re.MULTILINE)
_YES_NO = re.compile(r"(?i)[\s$*.\\{}]*(?:text\{)?(?:yes|no|true|false)[\s$*.}]*")
_IMAGE_FIELDS = ("image", "images", "figure", "figures")


def has_url(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether the question holds an address of the web.

    Example:
      >>> has_url("See https://a.org/b and answer.", "1", {})
      True
    """
    return _URL.search(question) is not None


def has_image(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether the question holds an image or the source of one, or the row a file.

    Example:
      >>> has_image("What is x? [asy] draw((0,0)--(1,1)); [/asy]", "1", {})
      True
      >>> has_image("What is x?", "1", {"images": [{"bytes": b"PNG"}]})
      True
      >>> has_image("What is x?", "1", {"image": None})
      False
    """
    return _IMAGE.search(question) is not None or any(
        row.get(name) not in (None, "", []) for name in _IMAGE_FIELDS
    )


def names_figure(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether the question speaks of a figure that is not in its text.

    Example:
      >>> names_figure("What is the area of the triangle in the figure?", "1", {})
      True
      >>> names_figure("How many two-figure numbers are there?", "90", {})
      False
    """
    return _FIGURE.search(question) is not None


def asks_proof(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether the question asks for a proof, which no final answer checks.

    Example:
      >>> asks_proof("Let n be odd. Prove that 8 divides n^2 - 1.", "", {})
      True
      >>> asks_proof("It can be shown that S = m/n. Find m + n.", "5", {})
      False
    """
    return _PROOF.search(question) is not None


def has_choices(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    """Whether the question lists choices A, B, C: one of four guesses is right.

    Example:
      >>> has_choices("What is 1 + 1? (A) 1 (B) 2 (C) 3 (D) 4", "B", {})
      True
      >>> has_choices("Points A, B and C lie on a line.", "2", {})
      False
    """
    return {"A", "B", "C"} <= set(_CHOICES.findall(question))


def is_yes_no(question: str, answer: str, row: Mapping[str, Any]) -> bool:
    r"""Whether the answer is yes, no, true or false: one of two guesses is right.

    Example:
      >>> is_yes_no("Is 7 prime?", r"\text{Yes}", {})
      True
    """
    return _YES_NO.fullmatch(answer) is not None


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "url": has_url,
        "image": has_image,
        "figure": names_figure,
        "proof": asks_proof,
        "choices": has_choices,
        "yes_no": is_yes_no,
    }
)
