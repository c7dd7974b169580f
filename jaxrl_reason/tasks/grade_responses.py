"""Grades of responses by any task: the one place where graders are called.

A grader is somebody's program: it may raise, return anything, or never return. Whatever
it does, its response has a grade, perhaps one that says that the grader failed, and the
others have theirs.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxrl_reason.grading.deadline import call_each, outcome_of
from jaxrl_reason.sharding.processes import is_main
from jaxrl_reason.tasks.task import (
    BoundsGrading,
    Graded,
    GradesAhead,
    GradesTogether,
    ResponseText,
    Task,
    failed_grade,
)

# Seconds of one grade, unless the task says another number. Graders of this library
# have far smaller bounds of their own.
GRADE_SECONDS = 600.0
_FLAGS = ("correct", "format_ok", "failed", "unchecked")

_LOG = logging.getLogger(__name__)


class GraderError(RuntimeError):
    """The grader failed on every response of a round."""


def grade_responses(
    task: Task,
    problems: Sequence[Any],
    responses: Sequence[ResponseText],
    step: int = 0,
) -> list[Graded]:
    """A task's grades of many responses, by the fastest way that it has.

    A response has failed if the grader raises, does not return in time or returns
    something that is not a grade (`checked_grade`).

    Args:
      task: grades.
      problems: the problem of each response.
      responses: the responses.
      step: of the policy.

    Returns:
      A grade for each response.
    """
    if isinstance(task, GradesTogether):
        # Such a task has deadlines for the calls that it makes.
        done = outcome_of(task.grade_together, (problems, responses, step))
        if done.error is not None:
            return [failed_grade(done.error)] * len(responses)
        return _each_checked(done.value, len(responses))
    return grade_each(task, problems, responses)


def grade_each(
    task: Task, problems: Sequence[Any], responses: Sequence[ResponseText]
) -> list[Graded]:
    """`grade_responses` by `task.grade` alone, one response at a time.

    For responses that were graded before: a `RewardTask` remembers their grades there,
    so its rewards are not asked again.

    Args:
      task: grades.
      problems: the problem of each response.
      responses: the responses.

    Returns:
      A grade for each response.
    """
    seconds = task.grade_seconds if isinstance(task, BoundsGrading) else GRADE_SECONDS
    if isinstance(task, GradesAhead):
        # What it raises, `grade` says once more of the responses that it concerns.
        texts = [response.text for response in responses]
        call_each(task.grade_ahead, [[problems, texts]], seconds * max(1, len(texts)))
    jobs = [
        (problem, response.text, response.truncated)
        for problem, response in zip(problems, responses, strict=True)
    ]
    return [
        _checked(done.value) if done.error is None else failed_grade(done.error)
        for done in call_each(task.grade, jobs, seconds)
    ]


def checked_grade(found: Any) -> Graded:
    """What a grader returned, if that is a grade.

    Args:
      found: by the grader.

    Returns:
      The grade, its flags True or False.

    Raises:
      TypeError: it is not a `Graded`, a flag is not a bool, or `parts` is not a mapping
        of finite numbers.

    Example:
      >>> checked_grade(Graded(correct=0.5, format_ok=True, parsed=None))
      Traceback (most recent call last):
      ...
      TypeError: correct of a grade must be True or False, got 0.5
    """
    if not isinstance(found, Graded):
        raise TypeError(f"a grader must return a Graded, got {found!r:.80}")
    odd = [name for name in _FLAGS if type(getattr(found, name)) is not bool]
    for name in odd:
        flag = getattr(found, name)
        if not isinstance(flag, np.bool_):
            raise TypeError(
                f"{name} of a grade must be True or False, got {flag!r:.80}"
            )
    if found.parts is not None and not _are_numbers(found.parts):
        raise TypeError(
            f"parts of a grade must be finite numbers by name, got {found.parts!r:.80}"
        )
    if not odd:
        return found
    return replace(
        found,
        correct=bool(found.correct),
        format_ok=bool(found.format_ok),
        failed=bool(found.failed),
        unchecked=bool(found.unchecked),
    )


def tell_failures(grades: Sequence[Graded], *, may_all_fail: bool = False) -> None:
    """Logs how many grades failed, with the first error.

    Args:
      grades: of a round.
      may_all_fail: whether that is no error.

    Raises:
      GraderError: all of them failed.
    """
    failed = [x for x in grades if x.failed]
    errors = [x.error for x in failed if x.error is not None]
    everything = len(failed) == len(grades) and not may_all_fail
    if not failed or not (errors or everything):
        return
    first = f", first {errors[0]}" if errors else ""
    said = f"the grader failed on {len(failed)} of {len(grades)} responses{first}"
    if everything:
        raise GraderError(said)
    if is_main():
        _LOG.warning("%s", said)


def _checked(found: Any) -> Graded:
    try:
        return checked_grade(found)
    except TypeError as error:
        return failed_grade(str(error))


def _each_checked(found: Any, count: int) -> list[Graded]:
    if not isinstance(found, list | tuple) or len(found) != count:
        got = len(found) if isinstance(found, list | tuple) else f"{found!r:.80}"
        error = (
            f"grade_together must return one grade per response ({count}), got {got}"
        )
        return [failed_grade(error)] * count
    return [_checked(x) for x in found]


def _are_numbers(parts: Any) -> bool:
    return isinstance(parts, Mapping) and all(
        isinstance(x, int | float | np.number) and math.isfinite(x)
        for x in parts.values()
    )
