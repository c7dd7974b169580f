"""Countdown: reach a target with + - * / and each given number exactly once."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from types import MappingProxyType

import numpy as np

from jaxrl_reason.grading.countdown_grader import grade
from jaxrl_reason.grading.formats import think_answer_format
from jaxrl_reason.tasks.countdown_behaviours import count_behaviours, mean_behaviours
from jaxrl_reason.tasks.countdown_search import attempts
from jaxrl_reason.tasks.generated_splits import SPLITS, check_fractions
from jaxrl_reason.tasks.task import Graded, ResponseText, Step
from jaxrl_reason.text.symbols import END_ANSWER, SymbolTokenizer
from jaxrl_reason.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Problem:
    """One puzzle.

    Attributes:
      numbers: the numbers to use, as the prompt lists them; ascending in the dataset.
      target: the value to reach.
      solution: an expression that reaches it.
      problem_id: number of the puzzle, unique over all splits.
    """

    numbers: tuple[int, ...]
    target: int
    solution: str
    problem_id: int

    def __post_init__(self) -> None:
        if not self.numbers:
            raise ValueError(f"numbers must not be empty, got {self.numbers!r}")
        # Numbers as text would compare unequal to those of every answer.
        for value in (*self.numbers, self.target):
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(
                    f"numbers and target must be integers, got {self.numbers!r} and "
                    f"{self.target!r}"
                )


@dataclass(frozen=True)
class CountdownSettings:
    """Which puzzles there are, and how they are split.

    Attributes:
      numbers: how many numbers a puzzle has; (3, 4) makes puzzles of both sizes.
      max_number: the numbers are 1..max_number.
      max_value: the largest target and the largest value of any step; all values are
        integers, targets are at least 1 and steps at least 0.
      max_targets: the largest number of targets, drawn at random, per set of numbers.
      validation_fraction: of the puzzles, for tuning.
      test_fraction: of the puzzles, for reported results.
      hold_out: "numbers" keeps all puzzles with the same numbers in one split, so that
        held-out puzzles have new numbers; "pairs" splits single puzzles, so that only
        their targets are new (the weaker claim).
      seed: for the draws and the split.
    """

    numbers: tuple[int, ...] = (3,)
    max_number: int = 10
    max_value: int = 50
    max_targets: int = 24
    validation_fraction: float = 0.1
    test_fraction: float = 0.27
    hold_out: str = "numbers"
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = self.numbers
        # Five numbers are 2,002 sets of some 100,000 ways each: not by enumeration.
        if not sizes or len(set(sizes)) < len(sizes) or not set(sizes) <= {2, 3, 4}:
            raise ValueError(
                f"numbers must be different sizes out of 2, 3 and 4, got {sizes}"
            )
        for name in ("max_number", "max_value", "max_targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        check_fractions(self.validation_fraction, self.test_fraction)
        if self.hold_out not in ("numbers", "pairs"):
            raise ValueError(
                f"hold_out must be 'numbers' or 'pairs', got {self.hold_out!r}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")


@lru_cache(maxsize=8)
def generate_problems(
    settings: CountdownSettings,
) -> Mapping[str, tuple[Problem, ...]]:
    """All puzzles of the settings, each with a known solution, by enumeration.

    The same settings always give the same puzzles, ids and splits.

    Args:
      settings: which puzzles, and how they are split.

    Returns:
      The puzzles of "train", "validation" and "test"; no two splits share one.

    Raises:
      ValueError: if a split that should have puzzles has none.

    Example:
      >>> splits = generate_problems(CountdownSettings())
      >>> splits["train"][0].numbers, splits["train"][0].target
      ((1, 1, 1), 1)
    """
    splits: dict[str, list[Problem]] = {name: [] for name in SPLITS}
    next_id = 0
    for size in settings.numbers:
        problems = _enumerate(settings, size, next_id)
        next_id += len(problems)
        # Every size is split separately, so that all splits have all sizes.
        for name, part in _split(settings, size, problems).items():
            splits[name] += part
    fractions = {
        "validation": settings.validation_fraction,
        "test": settings.test_fraction,
    }
    for name, part in splits.items():
        if not part and fractions.get(name, 1.0) > 0:
            raise ValueError(
                f"every split needs at least one problem, got {next_id} problems in "
                f"all and none left for {name!r}: {settings}"
            )
    return MappingProxyType({name: tuple(part) for name, part in splits.items()})


def _enumerate(settings: CountdownSettings, size: int, first_id: int) -> list[Problem]:
    """Puzzles of one size: sets of numbers in order, targets in order."""
    rng = np.random.default_rng((settings.seed, size, 0))
    problems: list[Problem] = []
    for numbers in combinations_with_replacement(
        range(1, settings.max_number + 1), size
    ):
        solutions: dict[int, str] = {}
        for attempt in attempts(numbers, settings.max_value):
            if attempt.value >= 1:
                solutions.setdefault(attempt.value, attempt.expression)
        targets = sorted(solutions)
        if len(targets) > settings.max_targets:
            chosen = rng.choice(len(targets), settings.max_targets, replace=False)
            targets = [targets[index] for index in sorted(chosen)]
        for target in targets:
            problem_id = first_id + len(problems)
            problems.append(Problem(numbers, target, solutions[target], problem_id))
    return problems


def _split(
    settings: CountdownSettings, size: int, problems: list[Problem]
) -> dict[str, list[Problem]]:
    """Assigns whole units (sets of numbers, or single puzzles) in random order."""
    units: dict[object, list[Problem]] = {}
    for problem in problems:
        by_numbers = settings.hold_out == "numbers"
        unit = problem.numbers if by_numbers else problem.problem_id
        units.setdefault(unit, []).append(problem)
    names = list(units)
    rng = np.random.default_rng((settings.seed, size, 1))
    shuffled = [units[names[index]] for index in rng.permutation(len(names))]
    wanted = {
        "test": settings.test_fraction * len(problems),
        "validation": settings.validation_fraction * len(problems),
    }
    splits: dict[str, list[Problem]] = {name: [] for name in SPLITS}
    for part in shuffled:
        short = (name for name in wanted if len(splits[name]) < wanted[name])
        splits[next(short, "train")] += part
    for part in splits.values():
        part.sort(key=lambda problem: problem.problem_id)
    return splits


_QUESTION = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use "
    "basic arithmetic operations (+, -, *, /) and each number can only be used once. "
    "Show your work in <think> </think> tags. And return the final answer in <answer> "
    "</answer> tags, for example <answer> (1 + 2) / 3 </answer>."
)
_TEMPLATES = MappingProxyType(
    {
        "base": (
            "A conversation between User and Assistant. The user asks a question, and "
            "the Assistant solves it. The assistant first thinks about the reasoning "
            "process in the mind and then provides the user with the answer.\n"
            f"User: {_QUESTION}\n"
            "Assistant: Let me solve this step by step.\n<think>"
        ),
        "qwen-instruct": (
            "<|im_start|>system\nYou are a helpful assistant. You first think about "
            "the reasoning process in the mind and then provide the user with the "
            "answer.<|im_end|>\n"
            f"<|im_start|>user\n{_QUESTION}<|im_end|>\n"
            "<|im_start|>assistant\nLet me solve this step by step.\n<think>"
        ),
    }
)


def prompt(problem: Problem, style: str = "symbols") -> str:
    """Text of a prompt; every style ends with `<think>`, which the response closes.

    Args:
      problem: the puzzle.
      style: "symbols" for the symbol tokenizer; "base" or "qwen-instruct", the texts
        of arXiv 2503.01307, for text tokenizers.

    Returns:
      The prompt.

    Raises:
      ValueError: if there is no such style.

    Example:
      >>> prompt(Problem((3, 4, 5), 35, "( 3 + 4 ) * 5", 0))
      '3 4 5 : 35 <think>'
    """
    if style == "symbols":
        return f"{' '.join(map(str, problem.numbers))} : {problem.target} <think>"
    if style not in _TEMPLATES:
        known = ", ".join(("symbols", *_TEMPLATES))
        raise ValueError(f"style must be one of {known}, got {style!r}")
    numbers = list(problem.numbers)
    return _TEMPLATES[style].format(numbers=numbers, target=problem.target)


@dataclass(frozen=True)
class CountdownTask:
    """Countdown for the training loop.

    `CountdownTask.with_symbols(settings)` is the toy form. For a text tokenizer:
    `CountdownTask(tokenizer, (tokenizer.eos_token_id,), "base")`.

    Attributes:
      tokenizer: text to ids and back.
      eos_token_ids: ids that end a response.
      style: style of the prompts, see `prompt`.
      name: short name, used in files and plots.
    """

    tokenizer: Tokenizer
    eos_token_ids: tuple[int, ...]
    style: str = "symbols"
    name: str = "countdown"

    @classmethod
    def with_symbols(
        cls, settings: CountdownSettings, words: Sequence[str] = ()
    ) -> "CountdownTask":
        """The task with one token per number and one per symbol.

        Args:
          settings: of the puzzles; they determine the number tokens.
          words: further words with a token each, for traces of one's own.

        Returns:
          The task. A response ends with `</answer>` or `<end>`.

        Raises:
          ValueError: as `SymbolTokenizer`.
        """
        largest = max(settings.max_value, settings.max_number)
        tokenizer = SymbolTokenizer(largest, words)
        closing = tokenizer.encode(END_ANSWER)
        return cls(tokenizer, (*closing, tokenizer.eos_token_id))

    def prompt_tokens(self, problem: Problem) -> list[int]:
        """Token ids of the prompt."""
        return self.tokenizer.encode(prompt(problem, self.style))

    def grade(self, problem: Problem, response_text: str, truncated: bool) -> Graded:
        """Grades a response.

        Args:
          problem: the puzzle.
          response_text: what came after the prompt.
          truncated: whether the length limit stopped the response, which is then not
            correct.

        Returns:
          The grade. `correct` depends only on the last answer after the reasoning and
          `format_ok` only on the tags; `failed` is set if the response is not text.
        """
        if not isinstance(response_text, str):
            return Graded(correct=False, format_ok=False, parsed=None, failed=True)
        # Every prompt ends with <think>: an answer inside reasoning does not count.
        verdict = grade(response_text, problem.numbers, problem.target, reasoning=True)
        return Graded(
            correct=verdict.correct and not truncated,
            format_ok=think_answer_format(response_text, opened=True),
            parsed=verdict.parsed,
        )

    def measure(
        self, problems: Sequence[Problem], responses: Sequence[ResponseText]
    ) -> dict[str, float]:
        """The habits in responses: counts per response, shares of true verdicts.

        Args:
          problems: the puzzle of each response.
          responses: the responses.

        Returns:
          As `countdown_behaviours.mean_behaviours`.
        """
        return mean_behaviours(
            [
                count_behaviours(response.text, problem.numbers, problem.target)
                for problem, response in zip(problems, responses, strict=True)
            ]
        )

    def steps(self, problem: Problem, response_text: str) -> list[Step]:
        """The moves of a response, and the rest of it as one more step.

        A move, `7 + 5 = 12`, replaces two numbers by its result; a step ends with its
        move. The state is the numbers left, in any order. A move with a number that is
        no longer left starts again from the puzzle's numbers; one with a number that
        was never there changes nothing. Results are used as written.

        Args:
          problem: the puzzle.
          response_text: what came after the prompt.

        Returns:
          At least one step.

        Example:
          >>> task = CountdownTask.with_symbols(CountdownSettings())
          >>> puzzle = Problem((3, 4, 5), 35, "( 3 + 4 ) * 5", 0)
          >>> text = "3 + 4 = 7 , 7 + 5 = 12 : 35 low 4 + 5 = 9 , 3 * 9 = 27"
          >>> for step in task.steps(puzzle, text):
          ...     print(step.end, step.state)
          9 ('3', '4', '5')
          22 ('5', '7')
          41 ('12',)
          54 ('3', '9')
          54 ('27',)
        """
        every = Counter(map(str, problem.numbers))
        left, found = every, []
        for move in _MOVE.finditer(response_text):
            found.append(Step(move.end(), tuple(sorted(left.elements()))))
            first, second, result = move.groups()
            taken = Counter((first, second))
            if not taken <= left and taken <= every:
                left = every
            if taken <= left:
                left = left - taken + Counter((result,))
        found.append(Step(len(response_text), tuple(sorted(left.elements()))))
        return found


# No number of a puzzle has more digits; without a bound a long one takes quadratic
# time.
_MOVE = re.compile(r"(\d{1,9})\s*[-+*/]\s*(\d{1,9})\s*=\s*(\d{1,9})")
