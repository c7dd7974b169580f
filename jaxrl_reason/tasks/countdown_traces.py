"""Search traces for fine-tuning: try, check, backtrack and answer.

A trace is a response to the symbol prompt of Countdown. Each try consists of all its
steps with their results and the target next to the last one, then `low`, `high` or
`yes`:

    3 + 4 = 7 , 7 + 5 = 12 : 35 low 3 + 4 = 7 , 7 * 5 = 35 : 35 yes </think> ...

This verdict is always true. Traces are imperfect on purpose in another way: most give
up early, and answer with a try that was found wrong. A model that has learnt the search
and the check from them still has to learn to use them, which is left to RL.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import numpy as np

from jaxrl_reason.tasks.countdown import Problem
from jaxrl_reason.tasks.countdown_search import Attempt, attempts
from jaxrl_reason.text.symbols import HIGH, LOW, YES


@dataclass(frozen=True)
class TraceSettings:
    """How the solver searches.

    Attributes:
      budget_weights: sampling weights of a budget of 1, 2, 3, ... tries.
      random_tries: probability that a try is a random combination; the others are the
        next one in the fixed order of `attempts`. Random tries are right no more often
        than those in order: if they were all solutions, a try out of order would be
        known to be right, and the model would not learn the check.
      give_up: whether to draw the budget from the weights. False: every trace has the
        largest budget (a control without early ends; the largest budget still ends).
      compare: write the target next to each result before the verdict, so that the
        check compares neighbours; a small model learns it much sooner.
      separator: symbol between the steps of a try, "" for none.
      max_value: largest value in any step; None to use that of the puzzles' settings,
        as in a run.
      words: further words with a token each, for a new model and traces of your own.
    """

    budget_weights: tuple[float, ...] = (0.56, 0.0, 0.08, 0.08, 0.08, 0.1, 0.1)
    random_tries: float = 0.1
    give_up: bool = True
    separator: str = ","
    compare: bool = True
    max_value: int | None = 50
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        weights = self.budget_weights
        valid = all(math.isfinite(weight) and weight >= 0 for weight in weights)
        # With a last weight of 0 no trace would reach max_tries.
        if not weights or not valid or weights[-1] <= 0:
            raise ValueError(
                f"budget_weights must be >= 0 and the last one > 0, got {weights}"
            )
        if not 0 <= self.random_tries <= 1:
            raise ValueError(f"random_tries must be in 0..1, got {self.random_tries}")
        if self.separator not in ("", ","):
            raise ValueError(f"separator must be '' or ',', got {self.separator!r}")
        if self.max_value is not None and self.max_value < 1:
            raise ValueError(f"max_value must be >= 1, got {self.max_value}")

    @cached_property
    def _cumulative(self) -> tuple[float, ...]:
        # Not a field: a command line would copy it from the defaults.
        return tuple(accumulate(self.budget_weights))

    @property
    def max_tries(self) -> int:
        """The largest budget."""
        return len(self.budget_weights)

    def budget(self, uniform: float) -> int:
        """The number of tries for a uniform draw from [0, 1)."""
        if not self.give_up:
            return self.max_tries
        reached = bisect_right(self._cumulative, uniform * self._cumulative[-1])
        return min(reached, self.max_tries - 1) + 1


def make_trace(
    problem: Problem, rng: np.random.Generator, settings: TraceSettings
) -> str:
    """Writes one trace for a puzzle.

    Args:
      problem: the puzzle.
      rng: random generator; the same state gives the same trace.
      settings: how the solver searches.

    Returns:
      The response, from after the prompt's `<think>` to `</answer>`.

    Raises:
      ValueError: if the puzzle has no solution within settings.max_value.

    Example:
      >>> puzzle = Problem((3, 4, 5), 12, "( 3 + 4 ) + 5", 0)
      >>> make_trace(puzzle, np.random.default_rng(1), TraceSettings())
      '3 + 4 = 7 , 7 + 5 = 12 : 12 yes </think> <answer> ( 3 + 4 ) + 5 </answer>'
    """
    tries = draw_tries(problem, rng, settings)
    target = problem.target
    search = "".join(f"{try_text(one, target, settings)} " for one in tries)
    return f"{search}</think> <answer> {tries[-1].expression} </answer>"


def draw_tries(
    problem: Problem, rng: np.random.Generator, settings: TraceSettings
) -> list[Attempt]:
    """The tries of one trace, for traces in a form of one's own.

    Args:
      problem: the puzzle.
      rng: random generator; the same state gives the tries of `make_trace`.
      settings: how the solver searches.

    Returns:
      At least one try; only the last one may be right.

    Raises:
      ValueError: as `make_trace`.

    Example:
      >>> puzzle = Problem((3, 4, 5), 12, "( 3 + 4 ) + 5", 0)
      >>> tries = draw_tries(puzzle, np.random.default_rng(1), TraceSettings())
      >>> [one.value for one in tries]
      [12]
    """
    ways = _ways(problem.numbers, problem.target, settings)
    budget = settings.budget(rng.random())
    in_order, tries = iter(ways), list[Attempt]()
    for _ in range(budget):
        if rng.random() < settings.random_tries:
            chosen = ways[int(rng.random() * len(ways))]
        else:
            # The order cannot end early: it includes a solution, which ends the trace.
            chosen = next(in_order)
        tries.append(chosen)
        if chosen.value == problem.target:
            break
    return tries


def try_text(attempt: Attempt, target: int, settings: TraceSettings) -> str:
    """A try with its verdict, as it stands in a trace.

    Args:
      attempt: the try.
      target: of the puzzle.
      settings: which signs are written.

    Example:
      >>> try_text(Attempt(("2 * 3 = 6",), "2 * 3", 6), 7, TraceSettings())
      '2 * 3 = 6 : 7 low'
    """
    steps = f" {settings.separator} " if settings.separator else " "
    compared = f" : {target}" if settings.compare else ""
    verdict = YES if attempt.value == target else LOW
    if attempt.value > target:
        verdict = HIGH
    return f"{steps.join(attempt.steps)}{compared} {verdict}"


def max_trace_tokens(size: int, settings: TraceSettings) -> int:
    """The largest number of tokens of a trace with the symbol tokenizer.

    Args:
      size: how many numbers the puzzle has.
      settings: how the solver searches.

    Returns:
      Tokens of the response with `</answer>`, without the prompt.

    Example:
      >>> max_trace_tokens(3, TraceSettings())
      108
    """
    separators = (size - 2) * len(settings.separator)
    verdict = 3 if settings.compare else 1
    one_try = 5 * (size - 1) + separators + verdict
    brackets = 2 * (size - 2)
    answer = size + (size - 1) + brackets
    tags = 3
    return settings.max_tries * one_try + answer + tags


def widest_trace(size: int, settings: TraceSettings, number: str) -> str:
    """A text as long as the longest trace, if a word may be several tokens.

    Args:
      size: how many numbers the puzzle has.
      settings: how the solver searches.
      number: the number with the most tokens; it stands for every number of the trace.

    Returns:
      The text, which is not the trace of a puzzle.

    Example:
      >>> print(widest_trace(2, TraceSettings(budget_weights=(1.0,)), "7"))
      7 + 7 = 7 : 7 high </think> <answer> 7 + 7 </answer>
    """
    separator = f" {settings.separator} " if settings.separator else " "
    steps = separator.join([f"{number} + {number} = {number}"] * (size - 1))
    one_try = f"{steps} : {number} high " if settings.compare else f"{steps} high "
    answer = f"{number} + {number}"
    for _ in range(size - 2):
        answer = f"( {answer} ) + {number}"
    return f"{one_try * settings.max_tries}</think> <answer> {answer} </answer>"


@lru_cache(maxsize=32768)
def _ways(
    numbers: tuple[int, ...], target: int, settings: TraceSettings
) -> tuple[Attempt, ...]:
    """All tries in the fixed order."""
    if settings.max_value is None:
        raise ValueError("max_value must be given to write traces, got None")
    ways = attempts(numbers, settings.max_value)
    if not any(way.value == target for way in ways):
        raise ValueError(
            f"a problem must have a solution with values up to {settings.max_value}, "
            f"got numbers {numbers} and target {target}"
        )
    return ways
