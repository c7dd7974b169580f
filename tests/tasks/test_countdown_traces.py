"""Search traces: their arithmetic, their ends, their fractions, their speed."""

import re
import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.grading.exact_arithmetic import exact_value, examine
from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    CountdownTask,
    Problem,
    generate_problems,
    prompt,
)
from jaxrl_reason.tasks.countdown_search import attempts
from jaxrl_reason.tasks.countdown_traces import (
    TraceSettings,
    make_trace,
    max_trace_tokens,
    widest_trace,
)

SETTINGS = CountdownSettings(numbers=(2, 3, 4), max_number=7, max_value=30)
PROBLEMS = generate_problems(SETTINGS)["train"]
TASK = CountdownTask.with_symbols(SETTINGS)
TRACES = TraceSettings(max_value=30)
PUZZLE = Problem((3, 4, 5), 35, "( 3 + 4 ) * 5", 0)


@dataclass
class Read:
    """A trace, read back."""

    values: list[int]
    answer: str


def read(
    text: str, numbers: tuple[int, ...], target: int, separator: str = ","
) -> Read:
    """Read a trace and check each step, each try and each verdict on the way."""
    search, _, answer = text.partition(" </think> <answer> ")
    assert answer.endswith(" </answer>")
    values = []
    for one_try, verdict in re.findall(r"(.+?) (yes|low|high)(?: |$)", search):
        table = list(numbers)
        one_try, beside, compared = one_try.partition(" : ")
        assert not beside or int(compared) == target
        words = one_try.split()
        width = 5 + len(separator)
        for start in range(0, len(words), width):
            left, operator, right, equals, result, *after = words[start : start + width]
            assert equals == "="
            assert exact_value(f"{left} {operator} {right}") == int(result)
            table.remove(int(left))
            table.remove(int(right))
            table.append(int(result))
            assert after == [separator] * (len(table) > 1 and separator != "")
        assert len(table) == 1
        over = (table[0] > target) - (table[0] < target)
        assert verdict == ("yes", "high", "low")[over]
        values += table
    return Read(values, answer.removesuffix(" </answer>"))


@pytest.mark.parametrize("give_up", [True, False])
@pytest.mark.parametrize("separator", ["", ","])
@pytest.mark.parametrize("compare", [True, False])
# Other processes may hold the machine for longer than an example takes.
@hypothesis_settings(deadline=None)
@given(index=st.integers(0, len(PROBLEMS) - 1), seed=st.integers(0, 2**32))
def test_what_holds_of_every_trace(
    index: int, seed: int, give_up: bool, separator: str, compare: bool
) -> None:
    problem = PROBLEMS[index]
    settings = replace(TRACES, give_up=give_up, separator=separator, compare=compare)
    text = make_trace(problem, np.random.default_rng(seed), settings)
    assert (" : " in text) is compare
    trace = read(text, problem.numbers, problem.target, separator)
    assert problem.target not in trace.values[:-1]
    right = trace.values[-1] == problem.target
    tries = len(trace.values)
    assert tries <= settings.max_tries
    if not right:
        assert settings.budget_weights[tries - 1] > 0
        assert give_up or tries == settings.max_tries
    # The answer is the last try, and the grader agrees.
    assert examine(trace.answer).value == trace.values[-1]
    graded = TASK.grade(problem, text, False)
    assert graded.correct is right
    assert graded.format_ok
    # It is in the vocabulary and within the bound.
    ids = TASK.tokenizer.encode(text)
    assert TASK.tokenizer.decode(ids) == text
    assert len(ids) <= max_trace_tokens(len(problem.numbers), settings)
    assert ids[-1] == TASK.eos_token_ids[0]


def test_the_same_draws_give_the_same_trace() -> None:
    first, second = (
        [make_trace(p, rng, TRACES) for p in PROBLEMS[:50]]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == second
    assert first != [
        make_trace(p, np.random.default_rng(4), TRACES) for p in PROBLEMS[:50]
    ]


def test_tries_come_in_the_fixed_order() -> None:
    settings = TraceSettings(random_tries=0.0, give_up=False)
    target = attempts((3, 4, 5), 50)[9].value
    puzzle = Problem((3, 4, 5), target, "", 0)
    text = make_trace(puzzle, np.random.default_rng(0), settings)
    trace = read(text, (3, 4, 5), target)
    assert trace.values == [way.value for way in attempts((3, 4, 5), 50)[:7]]
    assert examine(trace.answer).value != target


@pytest.mark.parametrize("separator", ["", ","])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_length_bound_is_reached(size: int, separator: str) -> None:
    settings = TraceSettings(random_tries=0.0, give_up=False, separator=separator)
    numbers = (6, 7, 9, 10)[:size]
    ways = attempts(numbers, 50)
    late = [w.value for w in ways if w.value not in {v.value for v in ways[:7]}]
    lengths = set()
    if size == 2:  # four ways at most: the budget must be smaller
        settings = replace(settings, budget_weights=(0.0, 1.0))
        late = [ways[2].value]
    for target in late:
        text = make_trace(
            Problem(numbers, target, "", 0), np.random.default_rng(0), settings
        )
        lengths.add(len(text.split()))
    assert max(lengths) == max_trace_tokens(size, settings)


def test_budgets_and_random_tries_have_their_shares() -> None:
    rng = np.random.default_rng(0)
    count = 6000
    # 8 / (9 - 7) is late in the order: only a random try finds it within the budget.
    numbers, target = (7, 8, 9), 4
    ways = attempts(numbers, 50)
    assert target not in {way.value for way in ways[:7]}
    puzzle = Problem(numbers, target, "", 0)
    settings = TraceSettings(random_tries=0.0)
    tries = Counter(
        len(read(make_trace(puzzle, rng, settings), numbers, target).values)
        for _ in range(count)
    )
    total = sum(settings.budget_weights)
    for budget, weight in enumerate(settings.budget_weights, start=1):
        assert abs(tries[budget] / count - weight / total) < 0.03
    assert tries[2] == 0

    settings = TraceSettings(random_tries=0.6, give_up=False)
    first_values = Counter(
        read(make_trace(puzzle, rng, settings), numbers, target).values[0]
        for _ in range(count)
    )
    alike = sum(way.value == ways[0].value for way in ways) / len(ways)
    assert abs(first_values[ways[0].value] / count - (0.4 + 0.6 * alike)) < 0.03


def test_a_try_out_of_order_is_as_often_wrong_as_any() -> None:
    # If only solutions were drawn, the order would give the verdict away.
    settings = TraceSettings(budget_weights=(1.0,), random_tries=1.0)
    rng = np.random.default_rng(0)
    ways = attempts((2, 2, 4), 50)
    fraction = sum(way.value == 4 for way in ways) / len(ways)
    puzzle = Problem((2, 2, 4), 4, "", 0)
    traces = [make_trace(puzzle, rng, settings) for _ in range(3000)]
    assert abs(np.mean([" yes " in text for text in traces]) - fraction) < 0.03
    answers = {read(text, (2, 2, 4), 4).answer for text in traces}
    assert answers == {way.expression for way in ways}


def test_weights_need_not_add_up_to_one() -> None:
    settings = TraceSettings(budget_weights=(1.0, 0.0, 3.0))
    draws = (np.arange(1000) + 0.5) / 1000
    budgets = Counter(settings.budget(draw) for draw in draws)
    assert budgets == {1: 250, 3: 750}
    assert settings.budget(0.0) == 1
    assert settings.budget(np.nextafter(1.0, 0.0)) == 3


def test_prompt_and_trace_make_one_text() -> None:
    puzzle = Problem((3, 4, 5), 12, "( 3 + 4 ) + 5", 0)
    settings = TraceSettings(random_tries=0.0)
    text = prompt(puzzle) + " " + make_trace(puzzle, np.random.default_rng(0), settings)
    assert text == (
        "3 4 5 : 12 <think> 3 + 4 = 7 , 7 + 5 = 12 : 12 yes </think> "
        "<answer> ( 3 + 4 ) + 5 </answer>"
    )


def test_traces_are_quick() -> None:
    problems = generate_problems(CountdownSettings())["train"]
    rng, settings = np.random.default_rng(0), TraceSettings()
    task = CountdownTask.with_symbols(CountdownSettings())
    start = time.process_time()
    for index in rng.integers(len(problems), size=6000):
        task.tokenizer.encode(make_trace(problems[index], rng, settings))
    assert 6000 / (time.process_time() - start) > 3000


def test_a_problem_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values up to 30, got numbers \(3, 4, 5\)"):
        make_trace(PUZZLE, np.random.default_rng(0), TRACES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_weights": ()}, r"the last one > 0, got \(\)"),
        ({"budget_weights": (1.0, -0.1, 1.0)}, "budget_weights must be >= 0"),
        ({"budget_weights": (1.0, 0.0)}, "the last one > 0"),
        ({"budget_weights": (1.0, float("inf"))}, "budget_weights must be >= 0"),
        ({"random_tries": 1.5}, r"random_tries must be in 0\.\.1, got 1.5"),
        ({"random_tries": -1.0}, r"random_tries must be in 0\.\.1, got -1.0"),
        ({"separator": ";"}, "separator must be '' or ',', got ';'"),
        ({"max_value": 0}, "max_value must be >= 1, got 0"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TraceSettings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("compare", [True, False])
@pytest.mark.parametrize("separator", ["", ","])
def test_the_widest_trace_is_as_long_as_any(
    size: int, compare: bool, separator: str
) -> None:
    settings = TraceSettings(compare=compare, separator=separator)
    text = widest_trace(size, settings, "7")
    assert len(text.split()) == max_trace_tokens(size, settings)


def test_the_range_of_traces_may_be_left_to_the_puzzles() -> None:
    problem = Problem((3, 4), 7, "3 + 4", 0)
    with pytest.raises(ValueError, match="max_value must be given to write traces"):
        make_trace(problem, np.random.default_rng(0), TraceSettings(max_value=None))
