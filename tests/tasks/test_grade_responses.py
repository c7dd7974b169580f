"""Whatever a grader does, each response has a grade."""

import re

import numpy as np
import pytest

from jaxrl_reason.tasks.grade_responses import (
    GraderError,
    checked_grade,
    grade_responses,
    tell_failures,
)
from jaxrl_reason.tasks.reward_functions import InProcessReward, Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.task import Graded, ResponseText
from tests.rl.helpers import LuckyTask, Toy, hang

RIGHT = Graded(True, True, "7")


class Says(LuckyTask):
    """A grader that returns what a test says, by the problem."""

    grade_seconds = 0.1
    answers = ()

    def grade(self, problem, response_text, truncated):
        answer = self.answers[problem.problem_id]
        return answer() if callable(answer) else answer


def grades_of(*answers):
    task = Says()
    object.__setattr__(task, "answers", answers)
    problems = [Toy(i) for i in range(len(answers))]
    return grade_responses(task, problems, [ResponseText("7 1")] * len(answers))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "must return a Graded, got None"),
        ((True, True), r"must return a Graded, got \(True, True\)"),
        (1.0, "must return a Graded, got 1.0"),
        (np.ones(3), "must return a Graded, got array"),
        (Graded(0.5, True, None), "correct of a grade must be True or False, got 0.5"),
        (Graded(1, True, None), "correct of a grade must be True or False, got 1"),
        (Graded(None, True, None), "correct of a grade must be True or False, got Non"),
        (Graded(np.ones(2, bool), True, None), "correct of a grade must be True or"),
        (Graded(True, "yes", None), "format_ok of a grade must be True or False"),
        (Graded(True, True, None, parts={"a": float("nan")}), "parts of a grade must"),
        (Graded(True, True, None, parts=[1.0]), "parts of a grade must be finite"),
    ],
)
def test_what_is_no_grade_has_failed(given, said):
    with pytest.raises(TypeError, match=said):
        checked_grade(given)
    bad, good = grades_of(given, RIGHT)
    assert bad.failed
    assert not bad.correct
    assert re.search(said, bad.error)
    assert good == RIGHT


def test_flags_of_numpy_are_flags():
    found = checked_grade(Graded(np.True_, np.False_, "7"))
    assert (found.correct, found.format_ok) == (True, False)
    assert type(found.correct) is bool


def test_a_grader_that_hangs_or_ends_the_program_fails_on_its_response():
    def hangs():
        hang()

    def leaves():
        raise SystemExit

    found = grades_of(RIGHT, hangs, leaves, RIGHT)
    assert [x.failed for x in found] == [False, True, True, False]
    assert found[1].error == "not done after 0.1 seconds"
    assert found[2].error.startswith("SystemExit")


def test_preparing_grades_may_fail():
    class Ahead(LuckyTask):
        def grade_ahead(self, problems, texts):
            raise OSError("no worker")

    (found,) = grade_responses(Ahead(), [Toy(0)], [ResponseText("7 1")])
    assert found.correct


def test_grades_together_are_one_for_each_response():
    class Together(RewardTask):
        said = None

        def grade_together(self, problems, responses, step=0):
            return self.said

    task = Together(LuckyTask(), lambda *asked: 1.0)
    for said, error in (
        (None, r"per response (2), got None"),
        ([RIGHT], r"per response (2), got 1"),
        ([RIGHT, None], "must return a Graded, got None"),
    ):
        object.__setattr__(task, "said", said)
        found = grade_responses(task, [Toy(0)] * 2, [ResponseText("7 1")] * 2)
        assert error in found[-1].error
        assert found[0].failed == (said != [RIGHT, None])


def test_grading_together_may_fail_on_all():
    class Together(RewardTask):
        def grade_together(self, problems, responses, step=0):
            raise SystemExit("no worker")

    task = Together(LuckyTask(), lambda *asked: 1.0)
    found = grade_responses(task, [Toy(0)] * 2, [ResponseText("7 1")] * 2)
    assert [x.failed for x in found] == [True, True]
    assert found[1].error.startswith("SystemExit: no worker")


def test_a_reward_in_this_process_has_a_deadline():
    def hangs(prompt, response, row):
        if row["problem_id"] == 0:
            hang()
        return 1.0

    def all_hang(prompt, responses, row):
        return [hangs(prompt, text, row) for text in responses]

    for function in (hangs, all_hang):
        reward = InProcessReward(function, deadline=0.1)
        task = RewardTask(LuckyTask(), [Weighted(reward)])
        problems = [Toy(0), Toy(1), Toy(1)]
        found = grade_responses(task, problems, [ResponseText("7 1")] * 3)
        assert [x.failed for x in found] == [True, False, False]
        assert "not done after 0.1 seconds" in found[0].error


def test_failures_are_told_and_all_of_them_are_an_error(caplog):
    failed = Graded(False, False, None, failed=True)
    tell_failures([failed, RIGHT])  # a reference that cannot be graded: known before
    assert not caplog.records
    for grades in ([failed] * 2, []):
        if grades:
            with pytest.raises(GraderError, match="failed on 2 of 2 responses"):
                tell_failures(grades)
        tell_failures(grades, may_all_fail=True)
