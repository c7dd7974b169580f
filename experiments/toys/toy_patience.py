"""A task in which a longer response is more often right, as a chain of thought."""

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from experiments.toys.toy_arms import WAITING
from experiments.toys.toy_setup import ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.tasks.task import Graded


@dataclass(frozen=True)
class Patience(CountDown):
    """Zeros, at least as many as the problem wants, which its prompt does not say.

    Attributes:
      most_wanted: zeros of the problem that wants most; each number up to it is as
        likely.
      ends: probability that a trace ends after a zero.
    """

    start_digits: tuple[int, ...] = (5,)
    most_wanted: int = 48
    ends: float = 0.4
    name: str = "patience"

    def wanted(self, problem: Toy) -> int:
        """Zeros that the problem wants, the same whenever it is asked."""
        digest = blake2b(str(problem.problem_id).encode(), digest_size=4).digest()
        return 1 + int.from_bytes(digest) % self.most_wanted

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        words = response_text.removesuffix(" .").split()
        waited = set(words) == {"0"} and len(words) >= self.wanted(problem)
        return Graded(waited and not truncated, not truncated, str(len(words)))

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        return [*[FIRST_DIGIT] * int(rng.geometric(self.ends)), END]


LIMIT = 64
PATIENT: ToySetup = replace(
    WAITING,
    task=Patience(),
    model=replace(WAITING.model, context_length=LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=2e-3),
    sft=replace(WAITING.sft, max_response=LIMIT, row_width=LIMIT + 1),
    settings=replace(WAITING.settings, max_new_tokens=LIMIT, row_width=LIMIT + 1),
)
