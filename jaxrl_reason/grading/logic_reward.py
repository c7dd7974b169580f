"""Logic-RL's reward for Knights and Knaves: format and answer, from the text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jaxrl_reason.grading.formats import last_tagged

ROLES = ("knight", "knave")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True)
class LogicGrade:
    """The grade of one response.

    Attributes:
      reward: the sum of the two parts: 3, -0.5, -1 or -3.
      correct: whether the format is correct and everybody has the right role.
      format_ok: whether every tag occurs once, in order.
      parsed: name -> role as answered; None if the answer could not be read.
      reason: why it is not correct; empty if it is.
    """

    reward: float
    correct: bool
    format_ok: bool
    parsed: dict[str, str] | None
    reason: str


def grade_roles(
    response: str, roles: Mapping[str, str], *, opened: bool = True
) -> LogicGrade:
    """Grades who is a knight and who is a knave, by the rules of Logic-RL.

    Format: +1 if each of `<think> </think> <answer> </answer>` occurs exactly once and
    in this order, else -1. Answer: +2 if everybody has the right role, -1.5 if not, -2
    if it cannot be read or the format is broken. An answer can be read if the words
    knight and knave occur in it as often as there are people, and everybody is named as
    "NAME is a knight" or "NAME is a knave". arXiv 2502.14768, section 2.2, and its
    `kk.py`, which looks for the response behind the first "Assistant:" of prompt and
    response together, so that a prompt that contains the word moves it.

    Text between or around the tags is allowed, unlike in `formats.think_answer_format`.
    As in `kk.py`, a negation around a sentence is not understood: "it is false that Zoe
    is a knight" makes her one.

    Args:
      response: what the model wrote, without the prompt; nothing in it is ever
        executed.
      roles: name -> "knight" or "knave".
      opened: whether the prompt ends with `<think>`, which counts: a response with a
        second one breaks the format.

    Returns:
      The grade. No response raises, and time is linear in its length.

    Raises:
      ValueError: `roles` is empty or has other roles.

    Example:
      >>> roles = {"Zoe": "knight", "Jack": "knave"}
      >>> said = "Zoe is a knight, Jack is a knave."
      >>> grade_roles(f"... </think> <answer> {said} </answer>", roles).reward
      3.0
      >>> grade_roles(f"... </think> {said}", roles).reward
      -3.0
    """
    if not roles or any(role not in ROLES for role in roles.values()):
        raise ValueError(
            f"roles must be knight or knave for one name at least, got {dict(roles)!r}"
        )
    text = response if isinstance(response, str) else ""
    if not tags_in_order(("<think>" if opened else "") + text):
        return LogicGrade(-3.0, False, False, None, "tags not once each and in order")
    answer = (last_tagged(text, "answer") or "").strip()
    parsed = parse_roles(answer, tuple(roles))
    if parsed is None:
        return LogicGrade(-1.0, False, True, None, "the answer does not name everybody")
    wrong = [name for name in roles if parsed[name] != roles[name]]
    if wrong:
        reason = f"wrong about {', '.join(wrong)}"
        return LogicGrade(-0.5, False, True, parsed, reason)
    return LogicGrade(3.0, True, True, parsed, "")


def tags_in_order(text: str) -> bool:
    """Whether `<think> </think> <answer> </answer>` occur once each, in this order.

    Args:
      text: the response, with the prompt's opening tag if it has one.

    Returns:
      True if so; text between and around them does not matter.

    Example:
      >>> tags_in_order("<think> a </think> so <answer> b </answer>")
      True
      >>> tags_in_order("</think> <answer> b </answer>")
      False
    """
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    places = [text.find(tag) for tag in _TAGS]
    return places == sorted(places)


def parse_roles(answer: str, names: tuple[str, ...]) -> dict[str, str] | None:
    """The roles that an answer gives to all names, or None.

    Args:
      answer: the text between the answer tags.
      names: everybody in the puzzle.

    Returns:
      name -> "knight" or "knave"; None if a name is missing or named twice, or the
      answer says anything else.

    Example:
      >>> parse_roles("(1) Zoe is a knight (2) **Jack** IS A KNAVE", ("Zoe", "Jack"))
      {'Zoe': 'knight', 'Jack': 'knave'}
      >>> parse_roles("Zoe is a knight or Jack is a knave", ("Zoe", "Jack")) is None
      True
    """
    known = {" ".join(name.casefold().split()): name for name in names}
    choices = "|".join(sorted(map(_spaced, known), key=len, reverse=True))
    sentence = re.compile(rf"({choices})\s+is\s+a\s+(knight|knave)(?!\w)")
    text = answer.replace("*", "").casefold()
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = sentence.match(text, at)
        if match is None:
            between = _BETWEEN.match(text, at)
            if between is None:
                return None
            at = between.end()
            continue
        name = known[" ".join(match[1].split())]
        if name in found:
            return None
        found[name] = match[2]
        at = match.end()
    return {name: found[name] for name in names} if len(found) == len(names) else None


# Numbering and what joins sentences. Each alternative takes at least a character.
_BETWEEN = re.compile(
    r"\s+|[,;.\-•]|\([0-9]{1,3}\)|[0-9]{1,3}[.):]|and(?!\w)", re.ASCII
)


def _spaced(name: str) -> str:
    """A pattern for a name with any white space between its words."""
    return r"\s+".join(map(re.escape, name.split()))
