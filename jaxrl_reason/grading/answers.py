"""Extraction of the final answer of a worked solution, in linear time."""

import re

MARKER = "####"
_BOX = re.compile(r"(\\boxed|\\fbox)(?![a-zA-Z])[ \t]*+(\{)?|\\.|[{}]", re.DOTALL)
# \boxed 7: a number, a letter or a command.
_BARE = re.compile(r"[-+]?[0-9][0-9.,/]*+|[A-Za-z](?![A-Za-z])|\\[A-Za-z]+")
_WRAPPED = re.compile(r"\\(?:boxed|fbox)[ \t]*+\{(.*)\}", re.DOTALL)
_DIGIT = re.compile("[0-9]")
# A point or a comma belongs to the number only between digits.
_NUMBER = re.compile(r"[0-9]++(?:[.,/][0-9]++)*+%?")


def marked_answer(text: str) -> str | None:
    r"""The final answer of a text: what follows the last mark, `#### 5` or `\boxed{5}`.

    The later of the two marks counts, so that a correction counts and a list of guesses
    does not. After `####` the rest of the line is the answer; without a digit in it,
    and unless it is None, it is taken for a heading if there is another mark before. A
    last box that does not close, or is empty, is not an answer. `\fbox{5}` and
    `\boxed 5` are boxes too.

    Args:
      text: the response.

    Returns:
      The answer without white space around it, or None.

    Example:
      >>> marked_answer("so 3 + 4 = 7\n#### 7")
      '7'
      >>> marked_answer(r"\boxed{7}, or rather \boxed{\frac{7}{2}}")
      '\\frac{7}{2}'
      >>> marked_answer("\\boxed{7}\n#### Conclusion")
      '7'
    """
    last_box = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    heading, end = None, len(text)
    while (marker := text.rfind(MARKER, last_box + 1, end)) >= 0:
        stop = text.find("\n", marker, end)
        line = text[marker + len(MARKER) : stop if stop >= 0 else end].strip(" \t\r\n")
        if _DIGIT.search(line) or line.strip("*$. ").casefold() == "none":
            return line
        heading = line if heading is None else heading
        end = max(text.rfind("\n", 0, marker), 0)
    if last_box >= 0:
        found = boxes(text)
        return (found[-1] or None) if found else None
    return heading or None


def every_box(text: str) -> str | None:
    r"""All boxes of a text as one list: a policy for answers in several boxes.

    To be given as `extract` where `marked_answer`, by which the last box counts, is
    not wanted.

    Args:
      text: the response.

    Returns:
      The answers in their order with commas between them; None without a box, or if
      one is empty or does not close.

    Example:
      >>> every_box(r"\boxed{1} and \boxed{2}")
      '1, 2'
    """
    found = boxes(text)
    return ", ".join(found) if found and all(found) else None


def boxes(text: str) -> list[str]:
    r"""The insides of the outermost boxes of a text.

    Args:
      text: the response.

    Returns:
      The answers from left to right; empty ones for boxes that do not close.

    Example:
      >>> boxes(r"\boxed{\boxed{1}} \boxed{2 + \boxed{3}} \boxed{4")
      ['1', '2 + \\boxed{3}', '']
    """
    found: list[tuple[int, str]] = []
    opened: list[tuple[int, int] | None] = []  # of each brace, its box
    for match in _BOX.finditer(text):
        if match[1] and match[2]:
            opened.append((match.start(), match.end()))
        elif match[1]:
            bare = _BARE.match(text, match.end())
            found.append((match.start(), bare[0].rstrip(".,") if bare else ""))
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened:
            box = opened.pop()
            if box is not None:
                while found and found[-1][0] > box[0]:  # inside this one
                    found.pop()
                found.append((box[0], text[box[1] : match.start()]))
    unclosed = [box[0] for box in opened if box is not None]
    if unclosed and (not found or unclosed[-1] > found[-1][0]):
        found.append((unclosed[-1], ""))
    return [_unwrapped(inside.strip(" \t\r\n")) for _, inside in found]


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


def _unwrapped(inside: str) -> str:
    r"""The answer of \boxed{\boxed{5}}."""
    match = _WRAPPED.fullmatch(inside) if len(inside) < 1000 else None
    if match is None or match[1].count("{") != match[1].count("}"):
        return inside
    depth = 0
    for brace in re.findall(r"\\.|[{}]", match[1]):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:  # two boxes, not one in the other
            return inside
    return _unwrapped(match[1].strip())
