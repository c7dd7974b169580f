"""Extraction of the final answer of a worked solution, in linear time."""

import re

MARKER = "####"
_BOX = "\\boxed"
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
# A point or a comma belongs to the number only between digits.
_NUMBER = re.compile(r"[0-9]++(?:[.,/][0-9]++)*+%?")


def marked_answer(text: str) -> str | None:
    r"""The final answer of a text: what follows the last mark, `#### 5` or `\boxed{5}`.

    The later of the two marks counts, so that a correction counts and a list of guesses
    does not. After `####` the rest of the line is the answer. A last box that does not
    close, or is empty, is not an answer.

    Args:
      text: the response.

    Returns:
      The answer without white space around it, or None.

    Example:
      >>> marked_answer("so 3 + 4 = 7\n#### 7")
      '7'
      >>> marked_answer(r"\boxed{7}, or rather \boxed{\frac{7}{2}}")
      '\\frac{7}{2}'
    """
    marker, box = text.rfind(MARKER), text.rfind(_BOX)
    if marker < 0 and box < 0:
        return None
    if marker > box:
        end = text.find("\n", marker)
        answer = text[marker + len(MARKER) : end if end >= 0 else len(text)]
    else:
        answer = _inside_braces(text, box + len(_BOX))
    return answer.strip(" \t\r\n") or None


def last_number(text: str) -> str | None:
    r"""The last number of the last line that is not blank.

    For models that use no mark. A weaker rule than `marked_answer`: in a line of
    guesses, the last one counts.

    Args:
      text: the response.

    Returns:
      The number with its sign, None if that line has none.

    Example:
      >>> last_number("3 + 4 = 7\nThe sum is 7.\n")
      '7'
    """
    stripped = text.rstrip()
    line = stripped[stripped.rfind("\n") + 1 :]
    found = None
    for match in _NUMBER.finditer(line):
        found = match
    if found is None:
        return None
    start = found.start()
    # "= -7" and "-7" are signs, "10-7" and "twenty-7" are not.
    before = line[max(start - 2, 0) : start]
    signed = before.endswith("-") and (len(before) == 1 or before[0] in " \t=$(*:")
    return ("-" if signed else "") + found[0]


def _inside_braces(text: str, start: int) -> str:
    """The text in the braces that open at `start`; empty if they never close."""
    while start < len(text) and text[start] in " \t":
        start += 1
    if not text.startswith("{", start):
        return ""
    depth = 0
    for match in _BRACE_OR_ESCAPE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return text[start + 1 : match.start()]
    return ""
