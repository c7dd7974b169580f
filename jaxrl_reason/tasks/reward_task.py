"""A user's reward: a plain function of prompt, response and row."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxrl_reason.tasks.task import Graded, TaskWrapper, without_end

# f(prompt, response_text, row) -> the reward, or its parts by name
RewardFunction = Callable[[str, str, Mapping[str, Any]], float | Mapping[str, float]]

CORRECT = "correct"  # not a part: whether the response is right
# Number of cached scores: a step needs each twice.
_REMEMBERED = 2**16


@dataclass(frozen=True)
class Score:
    """A reward function's score of a response.

    Attributes:
      parts: of the reward, which is their sum.
      correct: whether the response is right.
    """

    parts: Mapping[str, float]
    correct: bool

    @property
    def total(self) -> float:
        """The reward."""
        return sum(self.parts.values())


def read_score(given: Any) -> Score:
    """The score from a function's return value.

    A number is the reward, and the response is right if it is 1 or more. The values of
    a mapping are parts that add up, except `correct`, which says whether the response
    is right.

    Args:
      given: what the function returned.

    Returns:
      The score; its parts may be nan or infinite.

    Raises:
      ValueError: a mapping has no part besides `correct`.
      TypeError: a value is not a number.

    Example:
      >>> read_score(0.5)
      Score(parts={'reward': 0.5}, correct=False)
      >>> read_score({"answer": 1, "short": 0.1, "correct": True}).total
      1.1
    """
    parts = given if isinstance(given, Mapping) else {"reward": given}
    numbers = {str(name): float(x) for name, x in parts.items() if name != CORRECT}
    if not numbers:
        raise ValueError(f"a reward must have a part besides correct, got {given!r}")
    said = parts.get(CORRECT)
    score = Score(numbers, correct=False)
    correct = score.total >= 1 if said is None else bool(said)
    return Score(numbers, correct)


def load_function(place: str) -> Callable[..., Any]:
    """A function from a user's file.

    Args:
      place: `path/to/file.py:name`.

    Returns:
      The function.

    Raises:
      ValueError: the file or the function does not exist.
    """
    path, colon, name = place.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ValueError(f"reward must be my_file.py:my_function, got {place!r}")
    if not Path(path).is_file():
        raise ValueError(f"reward must be in a file that exists, got {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None  # a .py file always has one
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"reward must name a function in {path}, got {name!r}")
    function: Callable[..., Any] = found
    return function


@dataclass(frozen=True)
class RewardTask(TaskWrapper):
    """A task whose responses are scored by a user's function.

    Attributes:
      function: f(prompt, response_text, row) -> float or parts by name. The prompt is
        the question if a problem has one, or else the prompt's text; the row is that of
        the file, or else the problem's fields.
    """

    function: RewardFunction
    _scores: Callable[..., Score] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scores = lru_cache(maxsize=_REMEMBERED)(self._score)
        object.__setattr__(self, "_scores", scores)

    def score(self, problem: Any, response_text: str) -> Score:
        """The function's score of a response, called once per text.

        Args:
          problem: the question.
          response_text: the text after the prompt, without that of an EOS token.

        Returns:
          The score.
        """
        text = without_end(response_text, self.tokenizer)
        return self._scores(_Asked(problem, self), text)

    def _score(self, asked: "_Asked", text: str) -> Score:
        problem = asked.problem
        row = getattr(problem, "row", None)
        fields = asdict(problem) if row is None else dict(row)
        return read_score(self.function(asked.prompt, text, fields))

    def grade(self, problem: Any, response_text: str, truncated: bool) -> Graded:
        """Grades a response.

        Args:
          problem: the question.
          response_text: what came after the prompt.
          truncated: whether the length limit stopped the response, which is then not
            correct.

        Returns:
          The grade; a reward that is not finite counts as a failed grade.
        """
        score = self.score(problem, response_text)
        failed = not math.isfinite(score.total)
        return Graded(
            correct=score.correct and not truncated and not failed,
            format_ok=not failed,
            parsed=", ".join(f"{name} {x:g}" for name, x in score.parts.items()),
            failed=failed,
        )


@dataclass(frozen=True)
class _Asked:
    """A problem as a key: ids may repeat between sets, but with other prompts."""

    problem: Any = field(compare=False)
    task: RewardTask = field(compare=False)
    key: tuple[int, str] = field(init=False)

    def __post_init__(self) -> None:
        question = getattr(self.problem, "question", None)
        if question is None:
            question = self.task.tokenizer.decode(self.task.prompt_tokens(self.problem))
        object.__setattr__(self, "key", (int(self.problem.problem_id), question))

    @property
    def prompt(self) -> str:
        """The text of the prompt."""
        return self.key[1]
