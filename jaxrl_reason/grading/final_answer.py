"""Is the final answer of a worked solution the reference answer?"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxrl_reason.grading.algebra import algebraically_equal
from jaxrl_reason.grading.answer_equality import equal, read_reference, readings
from jaxrl_reason.grading.answer_policy import USUAL, AnswerPolicy
from jaxrl_reason.grading.answer_values import Quantity, Refused, Value
from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.formats import after_reasoning
from jaxrl_reason.grading.rationals import shown

RIGHT, WRONG, FAILED = "right", "wrong", "failed"

# (reference, answer, policy) -> equal, or None if it cannot tell.
Verify = Callable[[str, str, AnswerPolicy], bool | None]


@dataclass(frozen=True)
class AnswerGrade:
    """The grade of one response.

    Attributes:
      outcome: "right", "wrong" or "failed"; a failed grade is the fault of the
        reference or the grader and says nothing about the response.
      parsed: the graded answer, a number in lowest terms; None if there was none.
      reason: why it is not right; empty if it is.
      unchecked: whether it is wrong because the check of this answer ran into a bound,
        such as the deadline.
    """

    outcome: str
    parsed: str | None
    reason: str = ""
    unchecked: bool = False


@dataclass(frozen=True)
class Undecided:
    """An answer that only algebra can decide on.

    Attributes:
      gold: the reference.
      answer: the answer.
    """

    gold: str
    answer: str


def grade_final_answer(
    response: str,
    gold: str,
    *,
    extract: Callable[[str], str | None] = marked_answer,
    verify: Verify = algebraically_equal,
    policy: AnswerPolicy = USUAL,
    reasoning: bool | None = None,
) -> AnswerGrade:
    r"""Judge the final answer of a response; exact, and nothing in it is ever run.

    Numbers are compared as fractions, everything else as values of a closed grammar.
    What needs algebra (`\sqrt{8}` for `2\sqrt{2}`) goes to `verify`.

    Args:
      response: what the model wrote.
      gold: the reference answer, a number or LaTeX.
      extract: finds the answer in the response.
      verify: decides on what fractions cannot; by default in this process, see
        `MathVerifier` for others.
      policy: reads what has several meanings.
      reasoning: where the answer is looked for, see `after_reasoning`.

    Returns:
      The grade. It is failed if response or reference are not text, or the reference
      cannot be read.

    Example:
      >>> grade_final_answer("3 + 4 = 7\n#### 7.0", "7").outcome
      'right'
      >>> grade_final_answer("The answer is 7.", "7").reason
      'no final answer'
    """
    found = compare_final_answer(
        response, gold, extract=extract, policy=policy, reasoning=reasoning
    )
    if isinstance(found, AnswerGrade):
        return found
    verdict = verify(found.gold, found.answer, policy)
    return _graded(verdict, spelled(found.answer), gold)


def compare_final_answer(
    response: str,
    gold: str,
    *,
    extract: Callable[[str], str | None] = marked_answer,
    policy: AnswerPolicy = USUAL,
    reasoning: bool | None = None,
) -> AnswerGrade | Undecided:
    """The grade as far as fractions decide it.

    Args:
      response: what the model wrote.
      gold: the reference answer.
      extract: finds the answer in the response.
      policy: reads what has several meanings.
      reasoning: where the answer is looked for.

    Returns:
      The grade, or what algebra has to decide.

    Example:
      >>> compare_final_answer("#### sqrt(8)", "sqrt(2)")
      Undecided(gold='sqrt(2)', answer='sqrt(8)')
    """
    if not isinstance(response, str) or not isinstance(gold, str):
        return AnswerGrade(FAILED, None, "response and reference must be text")
    try:
        reference = read_reference(gold, policy)
    except Refused as error:
        reason = f"the reference {shown(gold)!r} cannot be read: {error}"
        return AnswerGrade(FAILED, None, reason)
    try:
        response.encode()
    except UnicodeEncodeError:
        return AnswerGrade(WRONG, None, "the response holds half a character")
    said = after_reasoning(response, reasoning)
    answer = None if said is None else extract(said)
    if answer is None:
        return AnswerGrade(WRONG, None, "no final answer")
    try:
        values = readings(answer, policy)
    except Refused as error:
        return AnswerGrade(WRONG, shown(answer), str(error))
    verdicts = [equal(reference, value) for value in values]
    if True not in verdicts and None in verdicts:
        return Undecided(gold, answer)
    return _graded(True in verdicts, _spelled(values[0], answer), gold)


def spelled(answer: str, policy: AnswerPolicy = USUAL) -> str:
    r"""An answer for logs and votes: a number in lowest terms, other text as it is.

    Args:
      answer: the text.
      policy: reads what has several meanings.

    Returns:
      The text, shortened if it is too long for a log.

    Example:
      >>> spelled("1,250.50"), spelled(r" 2\sqrt{2}")
      ('2501/2', '2\\sqrt{2}')
    """
    try:
        return _spelled(readings(answer, policy)[0], answer)
    except Refused:
        return shown(answer)


def _spelled(value: Value, answer: str) -> str:
    if isinstance(value, Quantity) and value.literal is not None:
        return shown(str(value.literal))
    return shown(" ".join(answer.split()))


def _graded(verdict: bool | None, parsed: str, gold: str) -> AnswerGrade:
    if verdict:
        return AnswerGrade(RIGHT, parsed)
    if verdict is None:
        return AnswerGrade(WRONG, parsed, "not checked within the bounds", True)
    return AnswerGrade(WRONG, parsed, f"not {shown(gold)}")


def unreadable_gold(gold: object, policy: AnswerPolicy = USUAL) -> str | None:
    r"""Why a reference cannot be graded against, found before any response is.

    Args:
      gold: the reference.
      policy: of the task.

    Returns:
      The reason; None if a response that repeats the reference is right.

    Example:
      >>> unreadable_gold(r"\sqrt[3]{2}") is None
      True
      >>> unreadable_gold("(1, 2")
      "the reference '(1, 2' cannot be read: a bracket is not closed"
    """
    if not isinstance(gold, str):
        return "response and reference must be text"
    found = grade_final_answer(gold, gold, extract=str, policy=policy, reasoning=False)
    return None if found.outcome == RIGHT else found.reason
