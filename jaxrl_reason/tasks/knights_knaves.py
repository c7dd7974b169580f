"""Knights and Knaves: who tells the truth? Puzzles with one solution, by difficulty."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.logic_reward import grade_roles, parse_roles
from jaxrl_reason.tasks.generated_splits import SplitSettings, split_questions
from jaxrl_reason.tasks.knights_claims import draw_claims
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.task import Graded, without_end
from jaxrl_reason.text.tokenizer import Tokenizer

INSTRUCTION = (
    "Reason in <think> </think>, then give the answer in <answer> </answer>, a line "
    "for each person, for example <answer> (1) Ada is a knight (2) Ben is a knave "
    "</answer>."
)
# fmt: off
_NAMES = (
    "Ada", "Amir", "Ben", "Carla", "Chidi", "Dora", "Emil", "Farah", "Felix", "Greta",
    "Hugo", "Ines", "Ivan", "Jana", "Kofi", "Lena", "Luca", "Mei", "Milo", "Nadia",
    "Nils", "Olga", "Omar", "Priya", "Quinn", "Rosa", "Samir", "Tara", "Uma", "Viktor",
    "Wanda", "Yusuf",
)
# fmt: on
_INTRODUCTION = (
    "On an island everybody is either a knight, who always tells the truth, or a "
    "knave, who always lies. You meet {count} people: {names}. {said} Who is a knight "
    "and who is a knave?"
)


@dataclass(frozen=True)
class KnightsSettings(SplitSettings):
    """Which puzzles there are, and how they are split.

    Attributes:
      people: how many people a puzzle has, 2 to 8; several numbers make puzzles of each
        in equal parts.
      depth: of the claims, 1 or 2: at 2, the parts of an "and" may be an "or".

    Raises:
      ValueError: a setting is out of its range.
    """

    people: tuple[int, ...] = (3,)
    depth: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = set(self.people)
        if not sizes or len(sizes) < len(self.people) or not sizes <= set(range(2, 9)):
            raise ValueError(
                f"people must be different numbers from 2 to 8, got {self.people}"
            )
        if self.depth not in (1, 2):
            raise ValueError(f"depth must be 1 or 2, got {self.depth}")


@dataclass(frozen=True)
class KnightsQuestion(Question):
    """A puzzle.

    Attributes:
      names: of the people, as the question names them.
    """

    names: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """name -> "knight" or "knave"."""
        found = parse_roles(self.answer, self.names)
        assert found is not None
        return found

    def unreadable(self, policy: AnswerPolicy = USUAL) -> None:
        """Every puzzle can be graded.

        Args:
          policy: not used.
        """


@lru_cache(maxsize=8)
def knights_questions(
    settings: KnightsSettings,
) -> Mapping[str, tuple[Question, ...]]:
    """Puzzles with exactly one solution each; no two are the same.

    The same settings always give the same puzzles, ids and splits. The form is that of
    arXiv 2410.23123, with claims and words of its own.

    Args:
      settings: which puzzles, and how they are split.

    Returns:
      The puzzles of "train", "validation" and "test" in random order; `kind` is the
      number of people.

    Raises:
      ValueError: there are not as many different puzzles.

    Example:
      >>> puzzle = knights_questions(KnightsSettings(problems=50))["test"][0]
      >>> print(puzzle.answer)
      Rosa is a knight, Wanda is a knave, Hugo is a knave
    """

    def draw(rng: np.random.Generator, number: int) -> tuple[object, Question]:
        people = settings.people[number % len(settings.people)]
        claims, knights = draw_claims(rng, people, settings.depth)
        chosen = rng.choice(len(_NAMES), people, replace=False)
        names = tuple(_NAMES[i] for i in chosen)
        said = " ".join(
            f"{name} says: {claim.words(names)}."
            for name, claim in zip(names, claims, strict=True)
        )
        text = _INTRODUCTION.format(
            count=people, names=f"{', '.join(names[:-1])} and {names[-1]}", said=said
        )
        answer = ", ".join(
            f"{name} is a {'knight' if knight else 'knave'}"
            for name, knight in zip(names, knights, strict=True)
        )
        # The same claims with other names are the same puzzle.
        return claims, KnightsQuestion(number, text, answer, str(people), names=names)

    return MappingProxyType(split_questions(settings, draw))


@dataclass(frozen=True)
class KnightsTask(QuestionTask):
    """Asks a `KnightsQuestion`; graded by the rules of Logic-RL (`grade_roles`)."""

    def _graded(self, problem: Question, text: str) -> Graded:
        assert isinstance(problem, KnightsQuestion)
        whole = without_end(text, self.tokenizer)
        opened = self._opened(problem) is True
        found = grade_roles(whole, problem.roles, opened=opened)
        said = [f"{name} is a {role}" for name, role in (found.parsed or {}).items()]
        return Graded(
            correct=found.correct,
            format_ok=found.format_ok,
            parsed=", ".join(said) or None,
        )

    def same_answer(self, first: str, second: str) -> bool:
        """Whether two answers give everybody the same role.

        Args:
          first: `parsed` of a grade.
          second: of another.
        """
        return first == second


def knights_knaves(tokenizer: Tokenizer) -> KnightsTask:
    """Knights and Knaves with Logic-RL's format.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return KnightsTask(tokenizer, INSTRUCTION, "knights_knaves")
