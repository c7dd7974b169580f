"""Generated questions, each once, in three splits."""

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from jaxrl_reason.tasks.questions import Question

SPLITS = ("train", "validation", "test")
_TRIES = 200  # draws in a row that give nothing new

# (generator of random numbers, number of the question) -> what makes it the same as
# another, and the question.
Draw = Callable[[np.random.Generator, int], tuple[Hashable, Question]]


@dataclass(frozen=True)
class SplitSettings:
    """How many questions there are, and how they are split.

    Attributes:
      problems: in all splits together.
      validation_fraction: of them, for tuning.
      test_fraction: of them, for reported results.
      seed: for the draws.

    Raises:
      ValueError: a setting is out of its range.
    """

    problems: int = 2000
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.problems < 1 or self.seed < 0:
            raise ValueError(
                "problems must be >= 1 and seed >= 0, got "
                f"{self.problems} and {self.seed}"
            )
        check_fractions(self.validation_fraction, self.test_fraction)


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Refuses held-out splits that leave nothing to train on.

    Args:
      validation_fraction: for tuning.
      test_fraction: for reported results.

    Raises:
      ValueError: one is not in [0, 1), or their sum is not.
    """
    given = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for name, value in given.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be >= 0 and < 1, got {value}")
    if not sum(given.values()) < 1:
        raise ValueError(
            "validation_fraction + test_fraction must be < 1, got "
            f"{sum(given.values())}"
        )


def split_questions(
    settings: SplitSettings, draw: Draw
) -> dict[str, tuple[Question, ...]]:
    """Draws different questions until there are enough, and splits them.

    Each question depends on the seed and its number alone, so that more problems leave
    the first ones as they are.

    Args:
      settings: how many, and the seed.
      draw: makes a question.

    Returns:
      The questions of "train", "validation" and "test", numbered in that order.

    Raises:
      ValueError: `draw` repeats itself.
    """
    found: dict[Hashable, Question] = {}
    for number in range(settings.problems):
        for again in range(_TRIES):
            rng = np.random.default_rng((settings.seed, number, again))
            key, question = draw(rng, number)
            if key not in found:
                break
        else:
            raise ValueError(
                "problems must be at most as many as differ, got "
                f"{settings.problems} and found {number}"
            )
        found[key] = question
    questions = list(found.values())
    test = round(settings.test_fraction * len(questions))
    validation = round(settings.validation_fraction * len(questions))
    first = len(questions) - test - validation
    parts = (
        questions[:first],
        questions[first : first + validation],
        questions[first + validation :],
    )
    numbered = {}
    start = 0
    for name, part in zip(SPLITS, parts, strict=True):
        numbered[name] = tuple(
            dataclasses.replace(question, problem_id=start + place)
            for place, question in enumerate(part)
        )
        start += len(part)
    return numbered
