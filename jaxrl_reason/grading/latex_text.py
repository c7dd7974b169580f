r"""LaTeX without layout, spaces and units, and with all braces."""

import re

MAX_DEPTH = 40

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[0-9]+|[ \t\r\n]+|.", re.DOTALL)
_RENAMED = {
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac"), "\\frac"),
    **dict.fromkeys(
        ("\\mbox", "\\textbf", "\\mathrm", "\\textrm", "\\mathbf"), "\\text"
    ),
    **{"\\le": "\\leq", "\\ge": "\\geq", "\\ne": "\\neq", "\\%": "%", "\\$": "$"},
    **{"\\lbrace": "\\{", "\\rbrace": "\\}"},
}
_LAYOUT = {"\\left", "\\right", "\\!", "\\,", "\\;", "\\:", "\\ ", "\\quad", "~", "$"}
_LAYOUT |= {"\\displaystyle", "\\(", "\\)", "\\[", "\\]"}
_ARGUMENTS = {"\\frac": 2, "\\sqrt": 1, "^": 1, "_": 1}
_DEGREES = re.compile(r"\^ *(?:\{ *\\circ *\}|\\circ(?![a-zA-Z]))|\\degree")


class Refused(Exception):
    """The text has no simple form."""


def simplified(text: str) -> str:
    r"""The text with every argument in braces and without layout, spaces and units.

    Args:
      text: LaTeX of bounded length.

    Returns:
      The text.

    Raises:
      Refused: braces do not match or nest too deeply, a command lacks its argument, or
      two numbers are adjacent.

    Example:
      >>> simplified(r"\left(\dfrac12 , x^2 \right)")
      '(\\frac{1}{2},x^{2})'
      >>> simplified(r"15 \mbox{ cm}^2")
      '15'
    """
    # 10,\!080 and 10{,}080 are the ways to typeset a comma inside a number.
    text = re.sub(r",\\! *|\{,\}", ",", text)
    text = _DEGREES.sub("", text)
    tokens = (_RENAMED.get(token, token) for token in _TOKEN.findall(text))
    reader = _Reader([token for token in tokens if token not in _LAYOUT])
    out = reader.run(0)
    if reader.peek():
        raise Refused
    return out


class _Reader:
    """Walks over the tokens once."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        """The next token, nothing at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, and moves past it."""
        token = self.peek()
        self.at += 1
        return token

    def skip_spaces(self) -> bool:
        """Skips spaces; returns whether there were any."""
        start = self.at
        while self.peek().isspace():
            self.at += 1
        return self.at > start

    def run(self, depth: int) -> str:
        """The text up to the end or to the closing brace of the enclosing group."""
        if depth > MAX_DEPTH:
            raise Refused
        text = ""
        while True:
            spaces = self.skip_spaces()
            token = self.peek()
            if token in ("", "}"):
                return text
            # Two adjacent numbers are not one.
            if spaces and token.isdigit() and text[-1:].isdigit():
                raise Refused
            text += self.piece(text, depth)

    def piece(self, before: str, depth: int) -> str:
        """The text of the next token with its arguments."""
        token = self.peek()
        if token == "{":
            return self.group(depth)
        self.take()
        if token == "\\text":
            return self.words(before, depth)
        if token in _ARGUMENTS:
            # A root of higher order has no form here: "[" is no argument.
            arguments = (self.argument(depth) for _ in range(_ARGUMENTS[token]))
            return token + "".join(arguments)
        if token[0] == "\\" and token[-1].isalpha():
            self.skip_spaces()
            return token + " " * self.peek()[:1].isalpha()  # \pi r and not \pir
        return token

    def group(self, depth: int) -> str:
        """A group with its braces."""
        self.take()
        inner = self.run(depth + 1)
        if self.take() != "}":
            raise Refused
        return f"{{{inner}}}"

    def argument(self, depth: int) -> str:
        """An argument in braces: a group, or else a single digit or token."""
        self.skip_spaces()
        token = self.peek()
        if token == "{":
            return self.group(depth)
        if token in ("", "}", "[", "\\text") or token in _ARGUMENTS:
            raise Refused
        if token.isdigit() and len(token) > 1:  # \frac43
            self.tokens[self.at] = token[1:]
            return f"{{{token[0]}}}"
        self.take()
        return f"{{{token}}}"

    def words(self, before: str, depth: int) -> str:
        r"""What follows \text; nothing if it is a unit, the last thing of a value."""
        words = ""
        if self.take() != "{":
            raise Refused
        while self.peek() not in ("", "{", "}"):
            words += self.take()
        if self.take() != "}":
            raise Refused
        rest = self.tokens[self.at :]
        if before and (not rest or (rest[0] == "^" and len(rest) <= 4)):
            if self.take() == "^":  # cm^2
                self.argument(depth)
            return ""
        return f"\\text{{{' '.join(words.split())}}}"
