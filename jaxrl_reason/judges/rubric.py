"""The criteria by which a judge scores."""

import re
from dataclasses import dataclass
from pathlib import Path

LOWEST, HIGHEST = 1, 10
_LINE = re.compile(r"(?P<name>[a-z]\w*)(?: +(?P<weight>[0-9.]+))? *: *(?P<text>.+)")


@dataclass(frozen=True)
class Criterion:
    """One criterion.

    Attributes:
      name: a word, of the reward's part.
      text: what is judged.
      weight: against the other criteria.
    """

    name: str
    text: str
    weight: float = 1.0


USUAL = (
    Criterion("correct_answer", "the final answer is right", 2.0),
    Criterion("sound", "every step follows from what was known before it"),
    Criterion("clear", "it says what is needed and no more"),
)


def read_rubric(path: Path) -> tuple[Criterion, ...]:
    """A rubric from a file: a line `name weight: what is judged` for each criterion.

    Args:
      path: of the text file; the weight may be left out.

    Returns:
      The criteria.

    Raises:
      ValueError: the file cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"judge.rubric must be a text file, got {path}") from error
    found: dict[str, Criterion] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        weight = float(match["weight"] or 1) if match else 0.0
        if match is None or not weight > 0 or match["name"] in found:
            raise ValueError(
                f"{path}, line {number}: a criterion must be `name weight: text` with "
                f"a new name and a weight above 0, got {line!r}"
            )
        found[match["name"]] = Criterion(match["name"], match["text"], weight)
    if not found:
        raise ValueError(f"judge.rubric must have a criterion, got none in {path}")
    return tuple(found.values())
