"""A digit that decides, then a wait: a reward near its cause, or long after it."""

from dataclasses import dataclass, replace

import numpy as np

from experiments.toys.toy_arms import WAITING
from experiments.toys.toy_setup import ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.tasks.task import Graded


@dataclass(frozen=True)
class DigitThenWait(CountDown):
    """A digit from 1 to 9, then at least `shortest` zeros and no other digit, the end.

    One digit is right, and only the reward says which: it is decided by the first
    token and comes with the last. The prompt is a 0.

    Attributes:
      right: the right digit.
      shortest: zeros of a right response.
      waits: fewest and most zeros of a trace.
    """

    start_digits: tuple[int, ...] = (0,)
    right: int = 7
    shortest: int = 32
    waits: tuple[int, int] = (41, 80)
    name: str = "digit_then_wait"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        said, *waited = response_text.removesuffix(" .").split()
        patient = len(waited) >= self.shortest and set(waited) == {"0"}
        right = said == str(self.right) and patient
        return Graded(right and not truncated, not truncated, said)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        fewest, most = self.waits
        said, wait = int(rng.integers(1, 10)), int(rng.integers(fewest, most + 1))
        return [FIRST_DIGIT + said, *[FIRST_DIGIT] * wait, END]


FAR: ToySetup = replace(WAITING, task=DigitThenWait())
NEAR = replace(WAITING, task=DigitThenWait(shortest=1, waits=(2, 4)))
