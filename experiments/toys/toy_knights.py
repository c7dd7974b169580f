"""Knights and Knaves in digits: who each of a row of people is, one after another."""

from dataclasses import dataclass, replace

import numpy as np

from experiments.toys.toy_setup import SETUP, ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.tasks.task import Graded

KNAVE, KNIGHT = 0, 1
SAYS_KNAVE, SAYS_KNIGHT, NOBODY = 2, 3, 9
MOST_PEOPLE = 7


@dataclass(frozen=True)
class KnightsInARow(CountDown):
    """The first person is known; each other one says what the one before is.

    A prompt is the first person's role, 0 a knave and 1 a knight, and a claim a person,
    2 "the one before me is a knave" and 3 "a knight". A response is the roles in order.
    Hardness is the number of people, as in arXiv 2502.14768.

    Attributes:
      people: numbers of people, in turn.
      sloppiness: probability that a role of a trace is either.
    """

    people: tuple[int, ...] = (3, 4, 5, 6, 7)
    sloppiness: float = 0.4
    name: str = "knights_in_a_row"

    def puzzle(self, problem: Toy) -> tuple[list[int], list[int]]:
        """Prompt and roles."""
        count = self.people[problem.problem_id % len(self.people)]
        rng = np.random.default_rng(problem.problem_id)
        first, *claims = [int(x) for x in rng.integers(2, size=count)]
        roles = [first]
        for says_knight in claims:
            roles.append(int(says_knight == roles[-1]))
        prompt = [first, *(SAYS_KNAVE + c for c in claims)]
        return prompt + [NOBODY] * (MOST_PEOPLE - count), roles

    def prompt_tokens(self, problem: Toy) -> list[int]:
        return [FIRST_DIGIT + digit for digit in self.puzzle(problem)[0]]

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        words = response_text.removesuffix(" .").split()
        if truncated or not set(words) <= {str(KNAVE), str(KNIGHT)}:
            return Graded(False, False, None)
        right = [int(word) for word in words] == self.puzzle(problem)[1]
        return Graded(right, True, " ".join(words))

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        roles = [
            int(rng.integers(2)) if rng.random() < self.sloppiness else role
            for role in self.puzzle(problem)[1]
        ]
        return [*(FIRST_DIGIT + role for role in roles), END]


KNIGHTS: ToySetup = replace(
    SETUP,
    task=KnightsInARow(),
    sft=replace(SETUP.sft, updates=600, examples_per_update=32),
    settings=replace(
        SETUP.settings,
        prompts_per_step=10,
        prompt_width=MOST_PEOPLE,
        updates_per_rollout=2,
    ),
)
