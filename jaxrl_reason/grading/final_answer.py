"""Is the final answer of a worked solution the reference answer?"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxrl_reason.grading.answers import marked_answer
from jaxrl_reason.grading.latex import compare, normal_form
from jaxrl_reason.grading.rationals import shown

RIGHT, WRONG, FAILED = "right", "wrong", "failed"

# (reference, answer), both in normal form -> equal, or None if it cannot tell in time.
Verify = Callable[[str, str], bool | None]


@dataclass(frozen=True)
class AnswerGrade:
    """The grade of one response.

    Attributes:
      outcome: "right", "wrong" or "failed"; a failed grade says nothing about the
        response.
      parsed: the graded answer, in its normal form if it has one; None if there was
        none.
      reason: why it is not right; empty if it is.
    """

    outcome: str
    parsed: str | None
    reason: str = ""


def grade_final_answer(
    response: str,
    gold: str,
    *,
    extract: Callable[[str], str | None] = marked_answer,
    verify: Verify | None = None,
    leading_zeros: bool = False,
) -> AnswerGrade:
    r"""Judge the final answer of a response; exact, and nothing in it is ever run.

    Numbers are compared as fractions, everything else by its normal form. What only
    algebra could decide (`\sqrt{8}` for `2\sqrt{2}`) goes to `verify`, and is wrong
    without it.

    Args:
      response: what the model wrote.
      gold: the reference answer, a number or LaTeX.
      extract: finds the answer in the response.
      verify: decides on pairs of different form.
      leading_zeros: whether 025 is read as 25.

    Returns:
      The grade. It is failed if response or reference are not text, the reference has
      no normal form, or `verify` could not decide.

    Example:
      >>> grade_final_answer("3 + 4 = 7\n#### 7.0", "7").outcome
      'right'
      >>> grade_final_answer("The answer is 7.", "7").reason
      'no final answer'
    """
    if not isinstance(response, str) or not isinstance(gold, str):
        return AnswerGrade(FAILED, None, "response and reference must be text")
    try:
        response.encode()
    except UnicodeEncodeError:
        return AnswerGrade(FAILED, None, "the response holds half a character")
    reference = normal_form(gold, leading_zeros=leading_zeros)
    if reference is None:
        return AnswerGrade(FAILED, None, f"no normal form of the reference {gold!r}")
    answer = extract(response)
    if answer is None:
        return AnswerGrade(WRONG, None, "no final answer")
    form = normal_form(answer, leading_zeros=leading_zeros)
    if form is None:
        return AnswerGrade(WRONG, shown(answer), "the answer has no normal form")
    equal = compare(reference, form)
    if equal is None and verify is not None:
        equal = verify(reference.text, form.text)
        if equal is None:
            return AnswerGrade(FAILED, shown(form.text), "not verified in time")
    if equal:
        return AnswerGrade(RIGHT, shown(form.text))
    return AnswerGrade(WRONG, shown(form.text), f"not {shown(reference.text)}")
