"""Is a response a solution of a Countdown puzzle?"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxrl_reason.grading.exact_arithmetic import examine
from jaxrl_reason.grading.formats import after_reasoning, last_tagged


@dataclass(frozen=True)
class CountdownGrade:
    """The grade of one response.

    Attributes:
      correct: the answer uses each number exactly once and has the target's value.
      parsed: the text of the graded answer, None without one.
      reason: why it is not correct; empty if it is.
    """

    correct: bool
    parsed: str | None
    reason: str


def grade(
    response: str,
    numbers: Sequence[int],
    target: int,
    *,
    reasoning: bool | None = None,
) -> CountdownGrade:
    r"""Grades the last `<answer>...</answer>` of a response.

    The answer must be an expression of unsigned integers, + - * / and ( ) that uses
    each given number exactly once and is exactly equal to the target. The signs may be
    LaTeX's (`\times`, `\cdot`, `\div`) or ×, · and ÷, and `= target` may follow.

    Args:
      response: what the model wrote; nothing in it is ever executed.
      numbers: the puzzle's numbers.
      target: the value to reach.
      reasoning: where the answer is looked for, see `after_reasoning`.

    Returns:
      The grade with its reason. No response raises, and time is linear in its length.

    Example:
      >>> grade("<answer> 3 * 5 + 7 </answer>", [3, 5, 7], 22).correct
      True
      >>> grade("<answer> 22 </answer>", [3, 5, 7], 22).reason
      'numbers used: 22; given: 3 5 7'
    """
    if not isinstance(response, str):
        return CountdownGrade(False, None, "the response is not text")
    said = after_reasoning(response, reasoning)
    answer = None if said is None else last_tagged(said, "answer")
    if answer is None:
        return CountdownGrade(False, None, "no <answer>...</answer>")
    return grade_expression(_left_side(answer, target), numbers, target)


def grade_expression(
    expression: str, numbers: Sequence[int], target: int
) -> CountdownGrade:
    """Grades the text of an answer by itself.

    Args:
      expression: the text between the answer tags.
      numbers: the puzzle's numbers.
      target: the value to reach.

    Returns:
      The grade, as from `grade`.

    Example:
      >>> grade_expression("3*5 + 7", [3, 5, 7], 22).correct
      True
    """
    if len(numbers) == 0:
        return CountdownGrade(False, None, "the puzzle has no numbers")
    # Keep a long answer out of logs: its length alone makes it wrong.
    parsed = expression.strip(" \t\r\n")[:200]
    evaluation = examine(_plain_signs(expression))
    if evaluation.value is None:
        return CountdownGrade(False, parsed, evaluation.reason)
    if Counter(evaluation.numbers) != Counter(numbers):
        used = " ".join(map(str, evaluation.numbers[:16]))
        given = " ".join(map(str, numbers))
        return CountdownGrade(False, parsed, f"numbers used: {used}; given: {given}")
    if evaluation.value != target:
        reason = f"worth {evaluation.value}, not {target}"
        return CountdownGrade(False, parsed, reason)
    return CountdownGrade(True, parsed, "")


_SIGNS = re.compile(r"\\(?:times|cdot|div)(?![a-zA-Z])|[×·÷−]")
_PLAIN = {"\\times": "*", "\\cdot": "*", "\\div": "/"}
_PLAIN |= {"×": "*", "·": "*", "÷": "/", "−": "-"}


def _plain_signs(expression: str) -> str:
    return _SIGNS.sub(lambda match: _PLAIN[match[0]], expression)


def _left_side(expression: str, target: int) -> str:
    """The expression before `= target`."""
    left, equals, right = expression.partition("=")
    return left if equals and right.strip(" \t\r\n") == str(target) else expression


def countdown_score(
    response: str,
    numbers: Sequence[int],
    target: int,
    *,
    format_score: float = 0.1,
) -> float:
    """TinyZero's score: 1 for a solution, format_score for an answer, 0 for none.

    An answer must be exact and in the grammar of `grade`; the original, which evaluates
    Python, also accepts powers, floor division, decimals and values within 1e-5.

    Only the last line of the text after the first "Assistant:" (or
    `<|im_start|>assistant`) is read, and of it the last `<answer>...</answer>`; a right
    answer followed by another line scores 0. arXiv 2503.01307 trains with it.

    Args:
      response: prompt and response together.
      numbers: the puzzle's numbers.
      target: the value to reach.
      format_score: score of a wrong answer.

    Returns:
      0.0, format_score or 1.0.

    Example:
      >>> countdown_score("Assistant: <answer>7 - 2</answer>", [2, 7], 5)
      1.0
      >>> countdown_score("Assistant: <answer>7//2</answer>", [2, 7], 3)
      0.1
    """
    for marker in ("Assistant:", "<|im_start|>assistant"):
        _, found, rest = response.partition(marker)
        if found:
            break
    else:
        return 0.0
    answer = last_tagged(rest[rest.rfind("\n") + 1 :], "answer")
    if answer is None:
        return 0.0
    solved = grade_expression(answer, numbers, target).correct
    return 1.0 if solved else format_score
