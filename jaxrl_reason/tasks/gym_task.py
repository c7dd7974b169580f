"""The generators of reasoning-gym (arXiv 2505.24760) as a task, with our graders."""

import importlib
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.formats import after_reasoning, last_tagged
from jaxrl_reason.tasks.generated_splits import SplitSettings, split_questions
from jaxrl_reason.tasks.gym_checks import (
    REFUSED,
    Entry,
    check_answer,
    unreadable_entry,
)
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.task import Graded, without_end
from jaxrl_reason.text.tokenizer import Tokenizer

INSTRUCTION = "Give the final answer, and nothing else, in <answer> </answer>."
_SPARE = 3  # entries of a generator for each that is needed: some repeat


@dataclass(frozen=True)
class GymSettings(SplitSettings):
    """Which of reasoning-gym's generators, and how many questions.

    Attributes:
      generators: names, such as chain_sum or basic_arithmetic; several in equal parts.
      options: of the generators, JSON, such as {"min_terms": 3}; each must know them.

    Raises:
      ValueError: a setting is out of its range, or a generator is not graded here.
    """

    generators: tuple[str, ...] = ("chain_sum",)
    options: str = "{}"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.generators or len(set(self.generators)) < len(self.generators):
            raise ValueError(f"generators must be different, got {self.generators}")
        for name in self.generators:
            if name in REFUSED:
                raise ValueError(f"generator {name} {REFUSED[name]}")
        try:
            options = json.loads(self.options)
        except ValueError:
            options = None
        if not isinstance(options, dict) or {"seed", "size"} & set(options):
            raise ValueError(
                f"options must be a JSON object without seed and size, got "
                f"{self.options!r}"
            )


@dataclass(frozen=True)
class GymQuestion(Question):
    """A question of a generator, which is its `kind`.

    Attributes:
      entry: of the generator's dataset.
    """

    entry: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def unreadable(self, policy: AnswerPolicy = USUAL) -> str | None:
        """Why no response can be graded; None if one can.

        Args:
          policy: not used.
        """
        return unreadable_entry(self.kind, self.entry)


@lru_cache(maxsize=8)
def gym_questions(settings: GymSettings) -> Mapping[str, tuple[Question, ...]]:
    """Questions of the generators, each once.

    The same settings and the same version of reasoning-gym give the same questions, ids
    and splits. Entries whose own answer is not right by our graders are left out.

    Args:
      settings: which, and how many.

    Returns:
      The questions of "train", "validation" and "test"; `kind` is the generator.

    Raises:
      ValueError: reasoning-gym is not installed, does not know a generator or an
        option, or has not as many different questions.
    """
    names = settings.generators
    each = -(-settings.problems // len(names))
    entries = {name: _entries(settings, name, each * _SPARE) for name in names}

    def draw(rng: np.random.Generator, number: int) -> tuple[Hashable, Question]:
        name = names[number % len(names)]
        entry = next(entries[name], None)
        if entry is None:
            raise ValueError(
                f"problems must be at most as many as {name} has, got "
                f"{settings.problems} for {len(names)} generators"
            )
        answer = str(entry.get("answer") or "any")
        question = GymQuestion(number, entry["question"], answer, name, entry=entry)
        return (name, entry["question"]), question

    return MappingProxyType(split_questions(settings, draw))


def _entries(settings: GymSettings, name: str, size: int) -> Iterator[Entry]:
    """The entries of a generator that can be graded, in its order."""
    found = _dataset(settings, name, size)
    every = (found[place] for place in range(size))
    return (entry for entry in every if unreadable_entry(name, entry) is None)


def _dataset(settings: GymSettings, name: str, size: int) -> Any:
    try:
        gym: Any = importlib.import_module("reasoning_gym")
    except ImportError:
        raise ValueError(
            "the task reasoning_gym needs pip install 'jaxrl-reason[reasoning-gym]'"
        ) from None
    options = json.loads(settings.options)
    try:
        return gym.create_dataset(name, size=size, seed=settings.seed, **options)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"reasoning_gym must know {name} and its options, got: {error}"
        ) from error


@dataclass(frozen=True)
class GymTask(QuestionTask):
    """Asks a generator's question, a `GymQuestion`; graded by `check_answer`.

    `format_ok` of a grade says that there is an answer in tags.
    """

    def _graded(self, problem: Question, text: str) -> Graded:
        assert isinstance(problem, GymQuestion)
        whole = without_end(text, self.tokenizer)
        said = after_reasoning(whole, self._opened(problem))
        answer = None if said is None else last_tagged(said, "answer")
        if answer is None:
            return Graded(correct=False, format_ok=False, parsed=None)
        right = check_answer(problem.kind, answer, problem.entry)
        return Graded(correct=right, format_ok=True, parsed=answer.strip())

    def same_answer(self, first: str, second: str) -> bool:
        """Whether two answers are the same text up to white space.

        Args:
          first: `parsed` of a grade.
          second: of another.
        """
        return first.split() == second.split()


def reasoning_gym(tokenizer: Tokenizer) -> GymTask:
    """Questions of reasoning-gym.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return GymTask(tokenizer, INSTRUCTION, "reasoning_gym")
