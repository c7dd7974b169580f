"""Pass rates of problems, and the filter that goes by them."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from jaxrl_reason.data.adaptive_streams import EasyPoolStream
from jaxrl_reason.data.strategies import hard_set
from jaxrl_reason.rl.pass_rate_filter import (
    keep_by_pass_rate,
    measure_pass_rates,
    pass_rates,
)
from jaxrl_reason.rl.problem_batches import tell_source
from jaxrl_reason.rl.rl_learner import RLState
from tests.rl.helpers import (
    SETTINGS,
    EndlessProblems,
    fake_rollouts,
    first_policy,
    same_trees,
)
from tests.rl.stage_helpers import PROBLEMS, toy_run


def test_a_grader_that_failed_is_neither_right_nor_wrong():
    rollouts = fake_rollouts([[True, True, False, False], [False] * 4])
    failed = np.array([[True, False, False, True], [True] * 4])
    rates = pass_rates(dataclasses.replace(rollouts, failed=failed))
    assert rates.num_correct.tolist() == [1, 0]
    assert rates.num_samples.tolist() == [2, 0]
    stream = EasyPoolStream(PROBLEMS, batch_size=4, seed=0)
    always = dataclasses.replace(fake_rollouts([[True] * 4]), failed=failed[:1])
    assert tell_source(stream, always) == {"data/problems_pool": 1}
    assert tell_source(EndlessProblems(4), always) == {}


def test_a_filter_by_the_policys_own_pass_rates():
    learner, params = toy_run().learner[1], first_policy().params
    rates = measure_pass_rates(learner, params, PROBLEMS[:6])
    assert rates.problem_ids.tolist() == list(range(6))
    assert rates.num_samples.tolist() == [SETTINGS.group_size] * 6
    again = measure_pass_rates(learner, params, PROBLEMS[:6])
    assert same_trees(tuple(rates), tuple(again))
    state = RLState(first_policy(), None, None, None, step=0, draws=0)
    keep = keep_by_pass_rate(PROBLEMS[:6], partial(hard_set, below=4, of=4))
    wanted = rates.problem_ids[rates.num_correct < 4].tolist()
    assert keep(learner, state) == wanted
    nothing = keep_by_pass_rate(PROBLEMS[:6], lambda c, n: c > n)
    with pytest.raises(ValueError, match=r"\(4\) or more, got 0 of 6"):
        nothing(learner, state)
