"""Problems selected by how often a model solved them.

The rules are those of `jaxrl_reason.data.strategies`: from counts of right answers and
of samples to flags.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxrl_reason.data.pipeline import ProblemSequence
from jaxrl_reason.tasks.countdown import Problem

# (num_correct [P], num_samples [P]) -> [P] bool, True for problems to keep.
Rule = Callable[[ArrayLike, ArrayLike], np.ndarray]


class PassRates(NamedTuple):
    """How often each of P problems was solved.

    Attributes:
      problem_ids: [P].
      num_correct: [P] right answers.
      num_samples: [P] answers that could be graded.
    """

    problem_ids: np.ndarray
    num_correct: np.ndarray
    num_samples: np.ndarray


def kept_ids(rates: PassRates, rule: Rule) -> list[int]:
    """Ids of the problems that a rule keeps, in their order.

    Args:
      rates: of any model: a fixed one (Light-R1, MiMo) or the trained one (Skywork-OR1
        before each of its stages).
      rule: such as `not_solved`, `mixed_outcomes`, `hard_set`, or `accuracy_band`
        with its bounds bound by `functools.partial`.

    Returns:
      Python integers, for JSON.

    Raises:
      ValueError: the counts are invalid.

    Example:
      >>> from functools import partial
      >>> from jaxrl_reason.data.strategies import LIGHT_R1_BAND, accuracy_band
      >>> rates = PassRates(*np.array([[7, 8, 9], [0, 1, 4], [4, 4, 4]]))
      >>> low, high = LIGHT_R1_BAND
      >>> kept_ids(rates, partial(accuracy_band, low=low, high=high))
      [8]
    """
    keep = rule(rates.num_correct, rates.num_samples)
    return [int(i) for i in np.asarray(rates.problem_ids)[keep]]


def with_ids(problems: ProblemSequence, ids: Collection[int]) -> list[Problem]:
    """The problems with the given ids, in the order of `problems`.

    Args:
      problems: each with a unique `problem_id`.
      ids: in any order.

    Returns:
      Problems for a stream.

    Raises:
      ValueError: an id is not that of a problem.

    Example:
      >>> from types import SimpleNamespace
      >>> problems = [SimpleNamespace(problem_id=i) for i in range(5)]
      >>> [p.problem_id for p in with_ids(problems, [4, 1])]
      [1, 4]
    """
    wanted = set(ids)
    found = [p for p in each(problems) if int(p.problem_id) in wanted]
    if len(found) != len(wanted):
        missing = wanted - {int(p.problem_id) for p in found}
        raise ValueError(
            f"ids must be of the {len(problems)} problems, got {sorted(missing)[:8]}"
        )
    return found


def each(problems: ProblemSequence) -> Iterator[Problem]:
    """The problems by position, the only way to read a source on disk."""
    return (problems[i] for i in range(len(problems)))
