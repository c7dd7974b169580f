"""Habits in responses, counted: by hand, and in the traces of the solver."""

import numpy as np
import pytest

from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    CountdownTask,
    generate_problems,
)
from jaxrl_reason.tasks.countdown_behaviours import Behaviours, count_behaviours
from jaxrl_reason.tasks.countdown_traces import (
    TraceSettings,
    draw_tries,
    make_trace,
)
from jaxrl_reason.tasks.task import ResponseText

pytestmark = pytest.mark.fast
SETTINGS = CountdownSettings(numbers=(2, 3, 4), max_number=6, max_value=24)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("</think> <answer> 3 + 4 </answer>", {}),
        # A try without a check, and a verdict without a try.
        ("3 + 4 = 7 , 7 * 5 = 35", {}),
        ("yes low 12 : 35 low", {}),
        (
            "3 + 4 = 7 , 7 * 5 = 35 : 35 yes",
            {"verification": 1, "yes": 1, "true_verdicts": 1, "true_yes": 1},
        ),
        ("3+4=7, 7+5=12: 35 low", {"verification": 1, "true_verdicts": 1}),
        # Back once, for the moves after `low`; not for those after `yes`.
        (
            "3 + 4 = 7 , 7 + 5 = 12 low 3 * 4 = 12 , 12 * 5 = 60 high 3 + 4 = 7",
            {"verification": 2, "backtracking": 2, "true_verdicts": 2},
        ),
        (
            "3 + 4 = 7 , 7 * 5 = 35 yes 3 + 4 = 7",
            {"verification": 1, "yes": 1, "true_verdicts": 1, "true_yes": 1},
        ),
        # What follows the reasoning is no reasoning.
        (
            "3 + 4 = 7 , 7 + 5 = 12 low </think> 3 + 4 = 7 low",
            {"verification": 1, "true_verdicts": 1},
        ),
        # Verdicts that do not hold: the wrong word, a slip, a number used twice, one
        # that is not there, one that is left over.
        ("3 + 4 = 7 , 7 + 5 = 12 high", {"verification": 1}),
        ("3 + 4 = 7 , 7 * 5 = 36 high", {"verification": 1}),
        ("3 + 4 = 8 , 8 * 5 = 40 high", {"verification": 1}),
        ("3 + 4 = 7 , 7 * 4 = 28 low", {"verification": 1}),
        ("3 + 9 = 12 , 12 * 5 = 60 high", {"verification": 1}),
        ("3 + 4 = 7 low", {"verification": 1}),
        ("7 * 5 = 35 yes", {"verification": 1, "yes": 1}),
        ("3 / 0 = 3 , 3 + 4 = 7 low", {"verification": 1}),
        # Backward from the target, to what the other numbers have to make.
        (
            "goal 7 35 / 5 = 7 , 3 + 4 = 7 : 7 yes",
            {
                "verification": 1,
                "subgoals": 1,
                "backward_chaining": 1,
                "yes": 1,
                "true_verdicts": 1,
                "true_yes": 1,
            },
        ),
        (
            "35 - 5 = 30 , 3 * 4 = 12 : 30 low",
            {"verification": 1, "backward_chaining": 1, "true_verdicts": 1},
        ),
        (
            "35 - 5 = 31 , 3 * 4 = 12 : 31 low",
            {"verification": 1, "backward_chaining": 1},
        ),
        # A try without a verdict, and then another one.
        (
            "3 + 4 = 7 , 7 + 5 = 12 , 3 + 4 = 7 , 7 * 5 = 35 yes",
            {"verification": 1, "yes": 1, "true_verdicts": 1, "true_yes": 1},
        ),
        # A number that is not there makes no move backward.
        ("35 - 9 = 26 , 3 + 4 = 7 : 26 low", {"verification": 1}),
        # Longer numbers than any puzzle has, and words in words, are nothing.
        ("3 + 4 = 12345678901 low yesterday goals 7", {}),
    ],
)
def test_what_a_response_does(text, expected):
    assert count_behaviours(text, (3, 4, 5), 35) == Behaviours(**expected)


def test_a_target_among_the_numbers_is_first_a_number():
    found = count_behaviours("5 + 3 = 8 , 8 - 3 = 5 : 5 yes", (3, 3, 5), 5)
    assert found.backward_chaining == 0
    assert found.true_yes == 1


@pytest.mark.parametrize("separator", ["", ","])
@pytest.mark.parametrize("compare", [True, False])
def test_every_verdict_of_the_solver_is_true(separator, compare):
    settings = TraceSettings(separator=separator, compare=compare, max_value=24)
    problems = generate_problems(SETTINGS)["train"]
    for seed, problem in enumerate(problems[:: len(problems) // 100]):
        text = make_trace(problem, np.random.default_rng(seed), settings)
        tries = draw_tries(problem, np.random.default_rng(seed), settings)
        found = count_behaviours(text, problem.numbers, problem.target)
        assert found.true_verdicts == found.verification == len(tries)
        assert found.backtracking == len(tries) - 1
        assert found.true_yes == found.yes == (tries[-1].value == problem.target)
        assert (found.subgoals, found.backward_chaining) == (0, 0)


def test_countdown_measures_responses():
    task = CountdownTask.with_symbols(SETTINGS)
    problem = generate_problems(SETTINGS)["train"][0]
    texts = ["1 + 1 = 2 : 3 low 1 + 1 = 3 : 3 yes", "</think>"]
    found = task.measure([problem] * 2, [ResponseText(text) for text in texts])
    assert problem.numbers == (1, 1)
    assert found["verification"] == 1.0
    assert found["backtracking"] == 0.5
    assert found["true_yes"] == 0.0
    nothing = task.measure([problem], [ResponseText("</think>")])
    assert nothing["verification"] == 0.0
    assert "true_verdicts" not in nothing
