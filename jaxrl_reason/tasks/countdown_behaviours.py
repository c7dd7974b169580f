"""What a response to a Countdown puzzle does: four habits, counted from its grammar.

The habits are those of arXiv 2503.01307, section 3: verification, backtracking, setting
subgoals and backward chaining. In a search trace each has a form of its own, so that no
judge is needed:

    goal 7 3 + 4 = 7 , 7 + 5 = 12 : 35 low 35 / 5 = 7 , 3 + 4 = 7 : 7 yes </think> ...

`low`, `high` or `yes` after moves verifies a try; moves after `low` or `high` go back;
`goal 7` names a number to make; a move that begins with the target, `35 / 5 = 7`, works
backward from it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxrl_reason.text.symbols import END_THINK, HIGH, LOW, YES

# The word before a number that is to be made; no word of `make_trace`.
GOAL = "goal"
# No number of a puzzle has more digits: what has more is no move.
_EVENT = re.compile(
    r"(?<!\d)(?P<left>\d{1,9})\s*(?P<operator>[-+*/])\s*(?P<right>\d{1,9})"
    r"\s*=\s*(?P<result>\d{1,9})(?!\d)"
    rf"|\b(?P<verdict>{LOW}|{HIGH}|{YES})\b"
    rf"|\b{GOAL}\s+(?P<goal>\d{{1,9}})\b"
)


@dataclass(frozen=True)
class Behaviours:
    """How often a response does what.

    Attributes:
      verification: tries with a verdict.
      backtracking: tries begun after a verdict of low or high.
      subgoals: numbers named as a goal.
      backward_chaining: moves from the target.
      yes: tries found right.
      true_verdicts: verdicts that hold: all moves of the try are right, they use the
        puzzle's numbers once each, and the result is as the verdict says.
      true_yes: those of them that are yes.
    """

    verification: int = 0
    backtracking: int = 0
    subgoals: int = 0
    backward_chaining: int = 0
    yes: int = 0
    true_verdicts: int = 0
    true_yes: int = 0


def count_behaviours(
    response_text: str, numbers: Sequence[int], target: int
) -> Behaviours:
    """The habits in the reasoning of a response, up to `</think>`.

    Args:
      response_text: what came after the prompt.
      numbers: of the puzzle.
      target: of the puzzle.

    Returns:
      The counts; all 0 for a text without moves.

    Example:
      >>> text = "3 + 4 = 7 , 7 + 5 = 12 : 35 low 3 + 4 = 7 , 7 * 5 = 36 : 35 yes"
      >>> found = count_behaviours(text, (3, 4, 5), 35)
      >>> found.verification, found.backtracking, found.true_verdicts
      (2, 1, 1)
    """
    counts, rejected = Counter[str](), False
    tried = _Try(numbers, target)
    for event in _EVENT.finditer(response_text.partition(END_THINK)[0]):
        if event["goal"]:
            counts["subgoals"] += 1
        elif event["left"]:
            counts["backtracking"] += rejected
            rejected = False
            move = (int(event[name]) for name in ("left", "right", "result"))
            counts["backward_chaining"] += tried.move(event["operator"], *move)
        elif tried.moves:  # a verdict on nothing is none
            said, true = event["verdict"], event["verdict"] == tried.verdict
            counts["verification"] += 1
            counts["yes"] += said == YES
            counts["true_verdicts"] += true
            counts["true_yes"] += true and said == YES
            tried, rejected = _Try(numbers, target), said != YES
    return Behaviours(**counts)


def mean_behaviours(found: Sequence[Behaviours]) -> dict[str, float]:
    """Counts per response; of true verdicts the share of all verdicts.

    Args:
      found: of responses.

    Returns:
      Means by name; a share is left out if there is no verdict of its kind.

    Example:
      >>> means = mean_behaviours([Behaviours(verification=4, true_verdicts=3)])
      >>> means["verification"], means["true_verdicts"], "true_yes" in means
      (4.0, 0.75, False)
    """
    totals = {
        name: sum(getattr(x, name) for x in found)
        for name in Behaviours.__dataclass_fields__
    }
    shares = {"true_verdicts": "verification", "true_yes": "yes"}
    return {
        name: total / (totals[shares[name]] if name in shares else len(found))
        for name, total in totals.items()
        if name not in shares or totals[shares[name]]
    }


class _Try:
    """The moves since the last verdict.

    Args:
      numbers: of the puzzle.
      target: of the puzzle.
    """

    def __init__(self, numbers: Sequence[int], target: int) -> None:
        self.numbers, self.target = Counter(numbers), target
        self.begin()

    def begin(self) -> None:
        """All numbers are left, and have to make the target."""
        self.left, self.needed = self.numbers.copy(), self.target
        self.moves, self.sound = 0, True

    def move(self, operator: str, left: int, right: int, result: int) -> bool:
        """Makes a move; whether it works backward from what is needed."""
        taken = Counter((left, right))
        backward = not taken <= self.left and left == self.needed
        backward = backward and self.left[right] > 0
        if backward:
            taken = Counter((right,))
        elif not taken <= self.left and taken <= self.numbers:
            self.begin()  # another try, without a verdict on the one before
        self.moves += 1
        self.sound &= taken <= self.left and _is_right(operator, left, right, result)
        self.left -= taken
        if backward:
            self.needed = result
        else:
            self.left[result] += 1
        return backward

    @property
    def verdict(self) -> str | None:
        """What is to be said of it; None if it is no whole try."""
        numbers = list(self.left.elements())
        if not self.sound or len(numbers) != 1:
            return None
        if numbers[0] == self.needed:
            return YES
        return LOW if numbers[0] < self.needed else HIGH


def _is_right(operator: str, left: int, right: int, result: int) -> bool:
    if operator == "/":
        return right != 0 and left == right * result
    made = {"+": left + right, "-": left - right, "*": left * right}
    return made[operator] == result
