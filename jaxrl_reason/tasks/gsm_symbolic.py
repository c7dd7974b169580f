"""Word problems from templates, in the manner of GSM-Symbolic (arXiv 2410.05229)."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from jaxrl_reason.grading.exact_arithmetic import exact_value
from jaxrl_reason.tasks.benchmarks import gsm8k
from jaxrl_reason.tasks.generated_splits import SplitSettings, split_questions
from jaxrl_reason.tasks.questions import Question, QuestionTask
from jaxrl_reason.tasks.symbolic_templates import TEMPLATES, Template
from jaxrl_reason.text.tokenizer import Tokenizer

_NAMES = ("Ada", "Ben", "Carla", "Emil", "Farah", "Hugo", "Ines", "Kofi", "Mei", "Omar")
_TRIES = 2000


@dataclass(frozen=True)
class SymbolicSettings(SplitSettings):
    """Which word problems there are, and how they are split.

    Attributes:
      steps: further steps of each problem, 0 to 2, as in GSM-Symbolic, P1 and P2.
      idle: whether a sentence with a number that does not matter is added, as in
        GSM-NoOp.

    Raises:
      ValueError: a setting is out of its range.
    """

    steps: int = 0
    idle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps not in (0, 1, 2):
            raise ValueError(f"steps must be 0, 1 or 2, got {self.steps}")


@lru_cache(maxsize=8)
def symbolic_questions(
    settings: SymbolicSettings,
) -> Mapping[str, tuple[Question, ...]]:
    """Word problems, each with other numbers, names and words.

    The same settings always give the same problems, ids and splits. The templates are
    this library's own. All values on the way are whole numbers of 1 and more.

    Args:
      settings: which problems, and how they are split.

    Returns:
      The questions of "train", "validation" and "test"; `kind` is the number of the
      template. Every template occurs in every split, with other numbers.

    Raises:
      ValueError: there are not as many different problems.

    Example:
      >>> problem = symbolic_questions(SymbolicSettings(problems=16))["train"][3]
      >>> problem.kind
      '3'
    """

    def draw(rng: np.random.Generator, number: int) -> tuple[Hashable, Question]:
        kind = number % len(TEMPLATES)
        text, value = fill(TEMPLATES[kind], rng, settings.steps, settings.idle)
        return text, Question(number, text, str(value), str(kind))

    return MappingProxyType(split_questions(settings, draw))


def fill(
    template: Template, rng: np.random.Generator, steps: int = 0, idle: bool = False
) -> tuple[str, int]:
    """A problem of a template.

    Args:
      template: with symbols.
      rng: draws numbers until every value is whole.
      steps: of `template.more`.
      idle: whether to add the sentence that does not matter.

    Returns:
      The text and the answer.

    Raises:
      ValueError: no numbers were found.
    """
    more = template.more[:steps]
    for _ in range(_TRIES):
        symbols = {
            symbol: str(rng.choice(np.arange(low, high + 1, step)))
            for symbol, (low, high, step) in template.numbers.items()
        }
        expressions = (template.answer, *(after for _, after in more))
        values = _values(expressions, symbols)
        if values is not None:
            break
    else:
        raise ValueError(f"a template must have whole values, got {template.story}")
    first, second = rng.choice(len(_NAMES), 2, replace=False)
    symbols |= {"name": _NAMES[first], "friend": _NAMES[second]}
    for symbol, words in template.words.items():
        symbols[symbol] = words[int(rng.integers(len(words)))]
    symbols["i"] = str(rng.integers(2, 10))
    sentences = [template.story, *(text for text, _ in more)]
    if idle:
        sentences.append(template.idle)
    sentences.append(template.question)
    return " ".join(sentences).format(**symbols), values[-1]


def _values(expressions: tuple[str, ...], symbols: dict[str, str]) -> list[int] | None:
    """The value after each step; None if one is not a whole number of 1 and more."""
    found: list[int] = []
    for expression in expressions:
        before = {"x": str(found[-1])} if found else {}
        value = exact_value(expression.format(**symbols, **before))
        if value is None or value < 1 or value != Fraction(int(value)):
            return None
        found.append(int(value))
    return found


def gsm_symbolic(tokenizer: Tokenizer) -> QuestionTask:
    """Word problems with the prompt and the grading of GSM8K.

    Args:
      tokenizer: of the model.

    Returns:
      The task.
    """
    return replace(gsm8k(tokenizer), name="gsm_symbolic")
