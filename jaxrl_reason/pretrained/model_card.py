"""Model cards: README.md with YAML front matter, as read by model hubs."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from jaxrl_reason.weights.hub import HUB_ID

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LINES = ("name", "license", "library_name", "pipeline_tag")
_TEXTS = ("data", "recipe", "summary", "measured")
_LISTS = ("language", "tags")
# YAML's printable characters, without line breaks beyond ASCII and the byte order mark.
# With these, a JSON string is a double-quoted YAML string.
_UNSAFE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")


@dataclass(frozen=True)
class Figure:
    """One row of the table of results.

    Attributes:
      name: what was measured.
      before: of the base model, None if not measured.
      after: of this model.

    Raises:
      ValueError: the name is empty, or a number is not finite.
    """

    name: str
    before: float | None
    after: float

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError(f"a figure must have a name, got {self.name!r}")
        for number in (self.before, self.after):
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"a figure must be finite, got {number} for {self.name!r}"
                )


@dataclass(frozen=True)
class ModelCard:
    """The contents of a model card.

    Attributes:
      name: of the model, one line.
      base_model: the initial model, preferably a hub id; None for no base model.
      license: the hub's identifier, such as "apache-2.0", "llama3.2" or "other".
      data: what the model was trained on, in Markdown.
      recipe: how it was trained, in Markdown.
      summary: the first paragraph, in Markdown.
      figures: results before and after training.
      measured: how the results were measured, in Markdown; required with figures.
      language: language codes, for example "en".
      tags: search tags.
      library_name: the library that loads it.
      pipeline_tag: its task on the hub.

    Raises:
      ValueError: a field breaks a rule; the message names field, rule and value.
    """

    name: str
    base_model: str | None
    license: str
    data: str
    recipe: str
    summary: str = ""
    figures: tuple[Figure, ...] = ()
    measured: str = ""
    language: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    library_name: str = "transformers"
    pipeline_tag: str = "text-generation"

    def __post_init__(self) -> None:
        for name in (*_LINES, *_TEXTS):
            _check_text(name, getattr(self, name), one_line=name in _LINES)
        if self.base_model is not None:
            _check_text("base_model", self.base_model, one_line=True)
        for name in (*_LINES, "data", "recipe"):
            if not getattr(self, name).strip():
                raise ValueError(
                    f"{name} must not be empty, got {getattr(self, name)!r}"
                )
        for name in _LISTS:
            words = getattr(self, name)
            if not isinstance(words, tuple):
                raise ValueError(f"{name} must be a tuple of words, got {words!r}")
            for word in words:
                _check_text(name, word, one_line=False)
                if not word.strip():
                    raise ValueError(f"{name} must not hold empty words, got {words!r}")
        if not _LICENSE.fullmatch(self.license):
            raise ValueError(
                "license must be an identifier of lower-case letters, digits, '.', '+' "
                f"and '-' such as apache-2.0, got {self.license!r}"
            )
        if bool(self.figures) != bool(self.measured.strip()):
            raise ValueError(
                "figures must come with measured, which says how, and the other way "
                f"round, got {len(self.figures)} figures and {self.measured!r}"
            )


def render_card(
    card: ModelCard, facts: Mapping[str, str], versions: Mapping[str, str]
) -> str:
    r"""A model card as text: YAML between two lines of dashes, then Markdown.

    Args:
      card: its contents.
      facts: about the files, by name.
      versions: of the software, by name.

    Returns:
      The text.

    Example:
      >>> card = ModelCard("Small: a model", None, "mit", "Digits.", "Adam.")
      >>> print(render_card(card, {}, {"jax": "0.10"}).split("\n\n")[0])
      ---
      license: "mit"
      library_name: "transformers"
      pipeline_tag: "text-generation"
      ---
    """
    base = card.base_model
    base_line = "none: trained from random parameters" if base is None else base
    facts = {"base model": base_line, "license": card.license, **facts}
    parts = [
        _front_matter(card),
        f"# {card.name}",
        card.summary,
        _table(("", ""), facts.items()),
        "## Training data",
        card.data,
        "## Recipe",
        card.recipe,
    ]
    if card.figures:
        rows = [(f.name, _number(f.before), _number(f.after)) for f in card.figures]
        parts += ["## Figures", _table(("", "before", "after"), rows), card.measured]
    parts += ["## Versions", _table(("", ""), versions.items())]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def quote_yaml(text: str) -> str:
    r"""A text as YAML's double-quoted string, on one line.

    Example:
      >>> print(quote_yaml('a: "b"\n---\u2028'))
      "a: \"b\"\n---\u2028"
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: _escaped(found[0]), quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


def _front_matter(card: ModelCard) -> str:
    lines = []
    for field in fields(card):
        value = getattr(card, field.name)
        if field.name in _LISTS and value:
            lines += [f"{field.name}:", *(f"- {quote_yaml(word)}" for word in value)]
        elif field.name in ("license", "library_name", "pipeline_tag"):
            lines.append(f"{field.name}: {quote_yaml(value)}")
        elif field.name == "base_model" and value and HUB_ID.fullmatch(value):
            # Hubs reject values that are not their ids; the table has them anyway.
            lines.append(f"{field.name}: {quote_yaml(value)}")
    return "\n".join(["---", *lines, "---"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(number: float | None) -> str:
    return "not measured" if number is None else f"{number:.6g}"


def _check_text(name: str, text: object, *, one_line: bool) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} must be text, got {text!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name} must not hold half a surrogate pair, got {text!r}")
    if one_line and len(text.splitlines()) > 1:
        raise ValueError(f"{name} must be one line, got {text!r}")
