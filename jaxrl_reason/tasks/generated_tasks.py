"""Tasks whose questions a program generates, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jaxrl_reason.tasks.benchmarks import BENCHMARKS
from jaxrl_reason.tasks.gsm_symbolic import gsm_symbolic, symbolic_questions
from jaxrl_reason.tasks.gym_task import gym_questions, reasoning_gym
from jaxrl_reason.tasks.knights_knaves import knights_knaves, knights_questions
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class GeneratedTask:
    """How questions are generated, prompted and graded.

    Attributes:
      questions: settings -> the questions of "train", "validation" and "test".
      task: tokenizer of the model -> the task.
    """

    questions: Callable[[Any], Mapping[str, Sequence[Question]]]
    task: Callable[[Tokenizer], QuestionTask]


# The settings of each are a group of flags with its name.
GENERATED_TASKS: Mapping[str, GeneratedTask] = MappingProxyType(
    {
        "gsm_symbolic": GeneratedTask(symbolic_questions, gsm_symbolic),
        "knights_knaves": GeneratedTask(knights_questions, knights_knaves),
        "reasoning_gym": GeneratedTask(gym_questions, reasoning_gym),
    }
)


def task_named(name: str, tokenizer: Tokenizer) -> QuestionTask:
    """A benchmark's or a generated task.

    Args:
      name: of the task.
      tokenizer: of the model.
    """
    if name in GENERATED_TASKS:
        return GENERATED_TASKS[name].task(tokenizer)
    return BENCHMARKS[name].task(tokenizer)
