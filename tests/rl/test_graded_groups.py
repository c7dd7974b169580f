"""Groups are graded while others are drawn, with the same grades as at the end."""

import threading

import numpy as np
import pytest

from jaxrl_reason.rl.graded_groups import GroupGrading
from jaxrl_reason.sampler import Completions
from jaxrl_reason.tasks.grade_responses import GraderError, grade_responses
from jaxrl_reason.tasks.reward_functions import InProcessReward, Weighted
from jaxrl_reason.tasks.reward_task import RewardTask
from jaxrl_reason.tasks.task import ResponseText
from tests.rl.helpers import LuckyTask, Toy

P, G = 3, 2
PROBLEMS = [Toy(i) for i in range(P)]
TOKENS = np.arange(P * G * 4).reshape(P * G, 4) % 7 + 3
LENGTHS = np.array([4, 3, 2, 4, 1, 4])
DONE = Completions(TOKENS, np.zeros(TOKENS.shape), LENGTHS, LENGTHS == 4)


class Reports:
    """A sampler that reports responses."""

    reports_responses = True


def test_a_complete_group_is_graded_before_the_sampler_returns():
    graded = threading.Event()

    def reward(prompt, responses, row, *, tokens, truncated, step):
        graded.set()
        return [n + step + 10 * cut for n, cut in zip(tokens, truncated, strict=True)]

    task = RewardTask(LuckyTask(), reward)
    with GroupGrading(task, PROBLEMS, G, step=5) as ahead:
        report = ahead.hooks(Reports())["on_response"]
        for row in (2, 0):
            report(row, TOKENS[row, : LENGTHS[row]].tolist(), bool(LENGTHS[row] == 4))
        assert not graded.wait(0.2)  # no group is complete
        report(3, TOKENS[3].tolist(), True)
        assert graded.wait(10)
        found = ahead.finish(DONE)
    assert ahead.ahead_seconds > 0
    at_end = GroupGrading(task, PROBLEMS, G, step=5).finish(DONE)
    expected = (LENGTHS + 5 + 10 * (LENGTHS == 4)).reshape(P, G)
    for one in (found, at_end):
        assert one.extras["reward_parts"][..., 0].tolist() == expected.tolist()
    np.testing.assert_array_equal(found.correct, at_end.correct)


def test_nothing_is_graded_ahead_on_devices_or_in_parts():
    reward = InProcessReward(lambda *asked: 1.0, needs_devices=True)
    task = RewardTask(LuckyTask(), [Weighted(reward)])
    assert GroupGrading(task, PROBLEMS, G).hooks(Reports()) == {}
    assert GroupGrading(LuckyTask(), PROBLEMS, G, parted=True).hooks(Reports()) == {}
    assert GroupGrading(LuckyTask(), PROBLEMS, G).hooks(lambda *x: None) == {}


def test_a_task_that_raises_fails_on_all():
    class Broken(RewardTask):
        def grade_together(self, problems, responses, step=0):
            raise OSError("no worker")

    task = Broken(LuckyTask(), lambda *asked: 1.0)
    (grade,) = grade_responses(task, [Toy(0)], [ResponseText("1")])
    assert grade.failed
    assert grade.error.startswith("OSError: no worker (test_graded_groups.py, line")
    with pytest.raises(GraderError, match="6 of 6 responses, first OSError: no work"):
        GroupGrading(task, PROBLEMS, G).finish(DONE)
