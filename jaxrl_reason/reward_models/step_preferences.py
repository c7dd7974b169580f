"""Preference data for single steps from a tree search with Q values, on the host.

rStar-Math (arXiv 2501.04519) trains its process preference model on it: of the
candidates for one step, those of highest Q that lead to a right answer against those of
lowest Q that lead to a wrong one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxrl_reason.reward_models.reward_batch import Comparison


@dataclass(frozen=True)
class SearchStep:
    """One node of the search.

    Attributes:
      prefix: tokens of the steps before it, without the question.
      tokens: of the step itself.
      q: mean outcome of the rollouts through the step, in [-1, 1] in the paper.
      leads_right: whether a rollout through it ended in a right answer.
      leads_wrong: whether a rollout through it ended in a wrong one.
      final: whether it gives the answer.
    """

    prefix: Sequence[int]
    tokens: Sequence[int]
    q: float
    leads_right: bool
    leads_wrong: bool
    final: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.q):
            raise ValueError(f"q must be finite, got {self.q}")
        if not len(self.tokens):
            raise ValueError("a step must have tokens, got none")


def step_comparisons(
    question: Sequence[int],
    steps: Iterable[SearchStep],
    *,
    positives: int = 2,
    negatives: int = 2,
) -> list[Comparison]:
    """A comparison for every step of one problem that has good and bad candidates.

    Steps with the same prefix are compared: the prompt is the question and the prefix,
    the responses are the steps. Steps that give the answer are compared across
    prefixes: the prompt is the question, the responses are whole solutions. A step on
    both right and wrong paths is on at most one side.

    Args:
      question: prompt tokens.
      steps: nodes of the search, in any order.
      positives: the largest number of steps of highest Q on paths to a right answer; 2
        in the paper.
      negatives: the largest number of steps of lowest Q on paths to a wrong one.

    Returns:
      The comparisons, in the order in which their prefixes first appear, with the
      answers last. There is none where one side is empty.

    Raises:
      ValueError: `positives` or `negatives` < 1.

    Example:
      >>> steps = [
      ...     SearchStep([], [7], 0.5, True, True),
      ...     SearchStep([], [8], -1.0, False, True),
      ...     SearchStep([7], [9], 1.0, True, False),
      ... ]
      >>> step_comparisons([3], steps)
      [Comparison(prompt=[3], chosen=[[7]], rejected=[[8]])]
    """
    if positives < 1 or negatives < 1:
        raise ValueError(
            f"positives and negatives must be >= 1, got {positives} and {negatives}"
        )
    groups: dict[tuple[int, ...], list[SearchStep]] = {}
    answers: list[SearchStep] = []
    for step in steps:
        if step.final:
            answers.append(step)
        else:
            groups.setdefault(tuple(step.prefix), []).append(step)
    out = []
    for prefix, members in groups.items():
        good, bad = pick_sides(members, positives, negatives)
        if good and bad:
            sides = [[list(s.tokens) for s in side] for side in (good, bad)]
            out.append(Comparison([*question, *prefix], *sides))
    good, bad = pick_sides(answers, positives, negatives)
    if good and bad:
        sides = [[[*s.prefix, *s.tokens] for s in side] for side in (good, bad)]
        out.append(Comparison(list(question), *sides))
    return out


def pick_sides(
    steps: Sequence[SearchStep], positives: int, negatives: int
) -> tuple[list[SearchStep], list[SearchStep]]:
    """The steps of highest Q on right paths and those of lowest Q on wrong ones.

    The sides pick in turns, so that steps on paths of both kinds go to both sides. A
    pick that would put a positive's Q at or below a negative's is not made; ties go to
    the first step.
    """
    good: list[SearchStep] = []
    bad: list[SearchStep] = []
    best = sorted((s for s in steps if s.leads_right), key=lambda s: -s.q)
    worst = sorted((s for s in steps if s.leads_wrong), key=lambda s: s.q)
    for _ in range(max(positives, negatives)):
        _take(best, good, bad, positives, sign=1)
        _take(worst, bad, good, negatives, sign=-1)
    return good, bad


def _take(
    ranked: Sequence[SearchStep],
    own: list[SearchStep],
    other: list[SearchStep],
    limit: int,
    sign: int,
) -> None:
    """Moves the first unpicked step to `own`, if its Q allows it."""
    taken = {id(s) for s in own + other}
    free = [s for s in ranked if id(s) not in taken]
    if len(own) < limit and free:
        first = free[0]
        if all(sign * (first.q - s.q) > 0 for s in other):
            own.append(first)
