"""Two-number arithmetic in words: "What is thirty-four plus eighteen?".

The numbers may also be in digits: "What is 34 plus 18?".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, cast

import numpy as np

from jaxrl_reason.grading.answers import last_number
from jaxrl_reason.tasks.generated_splits import check_fractions
from jaxrl_reason.tasks.questions import Question, QuestionTask, encode_user_turn
from jaxrl_reason.text.tokenizer import Tokenizer

# A question in words, and the response in an example.
Worked = tuple[str, str]

INSTRUCTION = "Reply with only the answer in digits."

NUM_PHRASES = 4
_PHRASES = MappingProxyType(
    {
        "plus": (
            "What is {a} plus {b}?",
            "What is the sum of {a} and {b}?",
            "What do you get if you add {b} to {a}?",
            "How much is {a} plus {b}?",
        ),
        "minus": (
            "What is {a} minus {b}?",
            "What is the difference between {a} and {b}?",
            "What do you get if you subtract {b} from {a}?",
            "How much is {a} minus {b}?",
        ),
        "times": (
            "What is {a} times {b}?",
            "What is the product of {a} and {b}?",
            "What do you get if you multiply {a} by {b}?",
            "How much is {a} times {b}?",
        ),
    }
)
# fmt: off
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen",
)
_TENS = (
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)
# fmt: on


@dataclass(frozen=True)
class ArithmeticSettings:
    """Which questions there are, and how they are split.

    Every number belongs to one split, and both numbers of a question come from its
    split: no number of a held-out question occurs in training.

    Attributes:
      min_number: the smallest number.
      max_number: the largest, at most 999.
      operations: from "plus", "minus" (never below zero) and "times".
      written: how numbers are written in the question, "words" or "digits".
      num_phrases: how many ways of asking there are, 1 to 4; the first is "What is
        ... plus ...?".
      validation_fraction: of the numbers, for tuning.
      test_fraction: of the numbers, for reported results.
      seed: for the split and the phrases.
    """

    min_number: int = 1
    max_number: int = 99
    operations: tuple[str, ...] = ("plus",)
    written: Literal["words", "digits"] = "words"
    num_phrases: int = 1
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_number < self.max_number <= 999:
            raise ValueError(
                "numbers must be 0 <= min_number < max_number <= 999, got "
                f"{self.min_number} and {self.max_number}"
            )
        chosen = set(self.operations)
        if not chosen or len(chosen) < len(self.operations) or chosen - set(_PHRASES):
            raise ValueError(
                f"operations must be different ones of {', '.join(_PHRASES)}, got "
                f"{self.operations}"
            )
        if not 1 <= self.num_phrases <= NUM_PHRASES:
            raise ValueError(
                f"num_phrases must be 1 to {NUM_PHRASES}, got {self.num_phrases}"
            )
        if self.written not in ("words", "digits"):
            raise ValueError(f"written must be words or digits, got {self.written!r}")
        check_fractions(self.validation_fraction, self.test_fraction)
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")


def in_words(number: int) -> str:
    """A number in English words.

    Args:
      number: from 0 to 999.

    Returns:
      The words.

    Raises:
      ValueError: if it is not in this range.

    Example:
      >>> in_words(34), in_words(807)
      ('thirty-four', 'eight hundred and seven')
    """
    if not 0 <= number <= 999:
        raise ValueError(f"number must be 0 to 999, got {number}")
    hundreds, rest = divmod(number, 100)
    if hundreds:
        tail = f" and {in_words(rest)}" if rest else ""
        return f"{_SMALL[hundreds]} hundred{tail}"
    if rest < 20:
        return _SMALL[rest]
    ones = f"-{_SMALL[rest % 10]}" if rest % 10 else ""
    return f"{_TENS[rest // 10 - 2]}{ones}"


@lru_cache(maxsize=8)
def generate_questions(
    settings: ArithmeticSettings,
) -> Mapping[str, tuple[Question, ...]]:
    """All questions of the settings: every ordered pair, each in one random phrase.

    The same settings always give the same questions, ids and splits.

    Args:
      settings: which sums, and how they are split.

    Returns:
      The questions of "train", "validation" and "test" in random order, so that the
      first n are a sample; `kind` is the operation.

    Raises:
      ValueError: if a split that should have numbers has none.

    Example:
      >>> question = generate_questions(ArithmeticSettings())["test"][0]
      >>> question.question, question.answer
      ('What is thirty-eight plus fifty-three?', '91')
    """
    splits: dict[str, tuple[Question, ...]] = {}
    next_id = 0
    for split, (name, numbers) in enumerate(_split_numbers(settings).items()):
        rng = np.random.default_rng((settings.seed, 1, split))
        facts = [
            (operation, a, b)
            for operation in settings.operations
            for a in numbers
            for b in numbers
            if operation != "minus" or a >= b
        ]
        order = rng.permutation(len(facts))
        phrases = rng.integers(settings.num_phrases, size=len(facts))
        splits[name] = tuple(
            _question(next_id + place, facts[index], phrase, settings.written)
            for place, (index, phrase) in enumerate(zip(order, phrases, strict=True))
        )
        next_id += len(facts)
    return MappingProxyType(splits)


def worked_examples(settings: ArithmeticSettings, count: int) -> tuple[Worked, ...]:
    """Worked examples in digits, with training numbers.

    Args:
      settings: which sums, and how they are split.
      count: how many; the operations alternate.

    Returns:
      Pairs of a question in its first phrase and the response to it.

    Raises:
      ValueError: if count is below 0, or there are too few numbers to train on.

    Example:
      >>> worked_examples(ArithmeticSettings(), 1)
      (('What is fifty-seven plus fifty-nine?', '57 + 59 = 116'),)
    """
    if count < 0:
        raise ValueError(f"the number of examples must be >= 0, got {count}")
    numbers = _split_numbers(settings)["train"]
    if 2 * count > len(numbers):
        raise ValueError(
            f"{count} examples need {2 * count} numbers to train on, got {len(numbers)}"
        )
    rng = np.random.default_rng((settings.seed, 2))
    drawn = rng.permutation(numbers)[: 2 * count].reshape(count, 2).tolist()
    examples = []
    for index, pair in enumerate(drawn):
        operation = settings.operations[index % len(settings.operations)]
        a, b = sorted(pair, reverse=True) if operation == "minus" else pair
        asked = _question(0, (operation, a, b), 0, settings.written)
        sign = {"plus": "+", "minus": "-", "times": "*"}[operation]
        examples.append((asked.question, f"{a} {sign} {b} = {asked.answer}"))
    return tuple(examples)


@dataclass(frozen=True)
class ArithmeticTask(QuestionTask):
    """Questions, each after some worked examples.

    Attributes:
      examples: earlier turns of the chat; plain text without a chat template.
    """

    examples: tuple[Worked, ...] = ()

    def prompt_tokens(self, problem: Question) -> list[int]:
        """Token ids of the prompt."""
        asked = [self._asked(text) for text, _ in self.examples]
        given = [response for _, response in self.examples]
        last = self._asked(problem.question)
        if getattr(self.tokenizer, "chat_template", None) is None:
            earlier = (
                f"{text}\n\nAnswer: {response}\n\n"
                for text, response in zip(asked, given, strict=True)
            )
            return encode_user_turn(self.tokenizer, "".join(earlier) + last)
        turns = [
            {"role": role, "content": text}
            for pair in zip(asked, given, strict=True)
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        chat = cast(Any, self.tokenizer)
        ids: list[int] = chat.encode_chat([*turns, {"role": "user", "content": last}])
        return ids

    def _asked(self, question: str) -> str:
        return f"{question}{self.separator}{self.instruction}"


def arithmetic(
    tokenizer: Tokenizer,
    instruction: str = INSTRUCTION,
    examples: tuple[Worked, ...] = (),
) -> ArithmeticTask:
    """The task: the answer is the last number of the response's last line.

    Small models do not follow a format, so none is requested.

    Args:
      tokenizer: of the model.
      instruction: follows the question; may be empty.
      examples: precede the question, see `worked_examples`.

    Returns:
      The task.
    """
    return ArithmeticTask(
        tokenizer,
        instruction,
        "arithmetic",
        extract=last_number,
        separator=" " if instruction else "",
        examples=examples,
    )


def _split_numbers(settings: ArithmeticSettings) -> dict[str, list[int]]:
    """The numbers of each split."""
    count = settings.max_number - settings.min_number + 1
    rng = np.random.default_rng((settings.seed, 0))
    shuffled = (rng.permutation(count) + settings.min_number).tolist()
    test = round(settings.test_fraction * count)
    validation = round(settings.validation_fraction * count)
    parts = {
        "train": shuffled[test + validation :],
        "validation": shuffled[test : test + validation],
        "test": shuffled[:test],
    }
    fractions = {
        "validation": settings.validation_fraction,
        "test": settings.test_fraction,
    }
    for name, numbers in parts.items():
        if not numbers and fractions.get(name, 1.0) > 0:
            raise ValueError(
                f"every split needs at least one number, got none for {name!r} of "
                f"{count}: {settings}"
            )
    return {name: sorted(numbers) for name, numbers in parts.items()}


def _question(
    number: int, fact: tuple[str, int, int], phrase: int, written: str
) -> Question:
    operation, a, b = fact
    result = {"plus": a + b, "minus": a - b, "times": a * b}[operation]
    spelled = in_words if written == "words" else str
    text = _PHRASES[operation][phrase].format(a=spelled(a), b=spelled(b))
    return Question(number, text, str(result), operation)
