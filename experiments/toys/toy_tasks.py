"""Toy tasks: problems without end, exact grades, and sloppy traces to learn from.

A toy task is a `Task` of the library with one more method, `trace`: a response as
somebody careless would write it. A model trained on such traces is right now and then,
the harder the problem the less often, so that groups hold right and wrong answers from
the first step of reinforcement learning on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxrl_reason.tasks.task import Graded, Step, Task

PAD, END, FIRST_DIGIT = 0, 1, 2


class DigitTokenizer:
    """One token a digit; 0 pads, 1 ends and reads as a full stop."""

    vocab_size, pad_token_id, eos_token_id = 12, PAD, END

    def encode(self, text: str) -> list[int]:
        return [
            END if word == "." else FIRST_DIGIT + int(word) for word in text.split()
        ]

    def decode(self, ids: Sequence[int]) -> str:
        words = {PAD: "_", END: "."}
        return " ".join(words.get(i, str(i - FIRST_DIGIT)) for i in ids)


DIGITS = DigitTokenizer()  # one for all, so that equal tasks are equal


@dataclass(frozen=True)
class Toy:
    """A problem that is nothing but its number; the task makes the rest of it."""

    problem_id: int


class ToyTask(Task[Toy], Protocol):
    """A task that also shows how it is (badly) done; a frozen dataclass."""

    def __hash__(self) -> int: ...

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        """Tokens of a response, the EOS token included, right or wrong."""


@dataclass(frozen=True)
class CountDown:
    """Count down from the prompt's digit to 0 and stop: for 5, "4 3 2 1 0 .".

    A response is right if every step goes down by 1 to `max_step` and the last digit is
    0; with `max_step` above 1 there are many right responses. The hardness of a problem
    is its number of steps.

    Attributes:
      start_digits: the digits that problems start from, in turn.
      max_step: largest step down.
      sloppiness: probability that a digit of a trace is any digit at all.
    """

    start_digits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    max_step: int = 1
    sloppiness: float = 0.3
    name: str = "count_down"
    tokenizer: DigitTokenizer = DIGITS
    eos_token_ids: tuple[int, ...] = (END,)

    def start(self, problem: Toy) -> int:
        """The digit to count down from."""
        return self.start_digits[problem.problem_id % len(self.start_digits)]

    def prompt_tokens(self, problem: Toy) -> list[int]:
        return [FIRST_DIGIT + self.start(problem)]

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        words = response_text.removesuffix(" .").split()
        if truncated or not all(word.isdigit() for word in words):
            return Graded(False, False, None)
        digits = [self.start(problem), *map(int, words)]
        steps = -np.diff(digits)
        fair = ((steps >= 1) & (steps <= self.max_step)).all()
        return Graded(bool(fair) and digits[-1] == 0, True, " ".join(words))

    def steps(self, problem: Toy, response_text: str) -> list[Step]:
        """Each token is a step, taken at the digit that stands before it."""
        words = [str(self.start(problem)), *response_text.split()]
        ends = np.cumsum([len(word) + 1 for word in words[1:]]) - 1
        return [
            Step(int(end), word) for end, word in zip(ends, words[:-1], strict=True)
        ]

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        now, out = self.start(problem), list[int]()
        while now > 0 and len(out) < 12:
            down = rng.integers(1, min(self.max_step, now) + 1)
            sloppy = rng.random() < self.sloppiness
            now = int(rng.integers(10)) if sloppy else now - int(down)
            out.append(FIRST_DIGIT + now)
        return [*out, END]


@dataclass(frozen=True)
class LosesTheThread(CountDown):
    """Counting down, with traces that get lost, and stay lost, in a row of 9s.

    9 is no problem's first digit, so that a model can tell.

    Attributes:
      go_on: probability of one more 9 once lost.
      longest: most 9s.
    """

    start_digits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    sloppiness: float = 0.25
    go_on: float = 0.85
    longest: int = 30
    name: str = "loses_the_thread"

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        out: list[int] = []
        for digit in reversed(range(self.start(problem))):
            if rng.random() < self.sloppiness:
                lost = min(1 + int(rng.geometric(1 - self.go_on)), self.longest)
                return [*out, *[FIRST_DIGIT + 9] * lost, END]
            out.append(FIRST_DIGIT + digit)
        return [*out, END]


@dataclass(frozen=True)
class SayAndWait(CountDown):
    """The prompt's digit, then `shortest` zeros or more and no other digit, the end.

    Attributes:
      shortest: zeros of a right response.
      known: probability that a trace begins with the prompt's digit.
      slip: probability that a token of a trace's wait is any digit at all.
    """

    start_digits: tuple[int, ...] = (7,)
    shortest: int = 32
    known: float = 0.6
    slip: float = 0.003
    name: str = "say_and_wait"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        said, *waited = response_text.removesuffix(" .").split()
        patient = len(waited) >= self.shortest and set(waited) == {"0"}
        right = said == str(self.start(problem)) and patient
        return Graded(right and not truncated, not truncated, said)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        known = rng.random() < self.known
        digits = [self.start(problem) if known else int(rng.integers(1, 10))]
        for _ in range(int(rng.integers(40, 81))):
            slips = rng.random() < self.slip
            digits.append(int(rng.integers(10)) if slips else 0)
        return [*(FIRST_DIGIT + digit for digit in digits), END]


class EndlessProblems:
    """Batches of ever new problems: the n-th holds numbers n * P to n * P + P - 1."""

    def __init__(self, batch_size: int, first: int = 0) -> None:
        self.batch_size, self.next = batch_size, first

    def __iter__(self) -> Iterator[Sequence[Toy]]:
        return self

    def __next__(self) -> Sequence[Toy]:
        first = self.next * self.batch_size
        self.next += 1
        return [Toy(first + i) for i in range(self.batch_size)]

    def get_state(self) -> dict[str, Any]:
        return {"next": self.next}

    def set_state(self, state: dict[str, Any]) -> None:
        self.next = state["next"]
