"""Tokens that are matched as a whole in a text: control tokens and added words."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_SPACES = re.compile(r"\s*")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in a text before the vocabulary's model sees it.

    Attributes:
      text: its spelling in the text.
      id: its id.
      control: whether it controls the model (`<|im_end|>`), so that a user's text must
        not produce it; otherwise it is an ordinary word (`<think>` of Qwen3).
      lstrip: whether white space before it belongs to it.
      rstrip: whether white space after it belongs to it.
      single_word: whether it is found only next to no letter, digit or `_`.
    """

    text: str
    id: int
    control: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class Splitter:
    """Splits a text at added tokens: the leftmost, and of these the longest.

    Args:
      tokens: the tokens to look for; none may be empty.

    Raises:
      ValueError: if a token's text is empty.

    Example:
      >>> Splitter([AddedToken("<s>", 1, control=True)]).split("<s>a <s>")
      [1, 'a ', 1]
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self._tokens = {token.text: token for token in tokens}
        if "" in self._tokens:
            number = self._tokens[""].id
            raise ValueError(
                f"an added token's text must not be empty, got id {number}"
            )
        longest_first = sorted(self._tokens, key=len, reverse=True)
        words = (_pattern(self._tokens[text]) for text in longest_first)
        self._found = re.compile("|".join(words)) if longest_first else None

    def split(self, text: str) -> list[str | int]:
        """The pieces in order: ids of the tokens found, and the text between them.

        Args:
          text: any text.

        Returns:
          Ids and texts; no text is empty.
        """
        pieces: list[str | int] = []
        position = 0
        while self._found and (match := self._found.search(text, position)):
            token = self._tokens[match.group()]
            before = text[position : match.start()]
            pieces += [before.rstrip() if token.lstrip else before, token.id]
            position = match.end()
            if token.rstrip and (spaces := _SPACES.match(text, position)):
                position = spaces.end()
        pieces.append(text[position:])
        return [piece for piece in pieces if piece != ""]


def _pattern(token: AddedToken) -> str:
    escaped = re.escape(token.text)
    return rf"(?<!\w){escaped}(?!\w)" if token.single_word else escaped


def added_tokens(spec: Mapping[str, Any]) -> list[AddedToken]:
    """The added tokens of a tokenizer.json.

    Args:
      spec: contents of the file.

    Returns:
      The tokens, in the file's order.

    Raises:
      ValueError: if one has no id or text.
    """
    tokens = []
    for entry in spec.get("added_tokens") or []:
        text, index = entry.get("content"), entry.get("id")
        if not isinstance(text, str) or not isinstance(index, int) or index < 0:
            raise ValueError(f"an added token must have content and id, got {entry}")
        flags = {
            key: bool(entry.get(key)) for key in ("lstrip", "rstrip", "single_word")
        }
        control = bool(entry.get("special"))
        tokens.append(AddedToken(text, index, control, **flags))
    return tokens
