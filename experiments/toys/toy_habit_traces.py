"""Styles of traces to prime a model with, for the claim on habits, and drills.

A style is a function like `make_trace`, which `jaxrl-reason train --trace` takes too:

    jaxrl-reason train --task countdown --sft.updates 250 ... \
        --trace experiments/toys/toy_habit_traces.py:unchecked

All styles but `goals_and_backward` draw the same tries from the same generator.
"""

from dataclasses import replace

import numpy as np

from jaxrl_reason.tasks.countdown import Problem
from jaxrl_reason.tasks.countdown_behaviours import GOAL
from jaxrl_reason.tasks.countdown_search import Attempt, attempts
from jaxrl_reason.tasks.countdown_traces import (
    TraceSettings,
    draw_tries,
    make_trace,
    try_text,
)
from jaxrl_reason.text.symbols import END, HIGH, LOW, YES

Rng = np.random.Generator
habits = make_trace


def closed(search: str, answer: str) -> str:
    """A whole response."""
    return f"{search} </think> <answer> {answer} </answer>".strip()


def steps_text(attempt: Attempt) -> str:
    """The moves of a try without a verdict."""
    return " , ".join(attempt.steps)


def one_try(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """The last of the tries alone, without a check: right as often as `habits`."""
    last = draw_tries(problem, rng, settings)[-1]
    return closed(steps_text(last), last.expression)


def empty(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """No reasoning, the same answer."""
    return closed("", draw_tries(problem, rng, settings)[-1].expression)


def unchecked(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """The same tries, none of them compared with the target."""
    tries = draw_tries(problem, rng, settings)
    return closed(" , ".join(map(steps_text, tries)), tries[-1].expression)


def unrelated(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """Right sums of other numbers, as long as the tries before the last, then that."""
    tries = draw_tries(problem, rng, settings)
    other = [fact(rng, settings.max_value or 1) for _ in range(2 * len(tries) - 2)]
    last = tries[-1]
    return closed(" , ".join([*other, steps_text(last)]), last.expression)


def placeholders(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """A sign again and again, as long as the tries before the last, then that."""
    tries = draw_tries(problem, rng, settings)
    filler = ": " * (14 * (len(tries) - 1))
    return closed(f"{filler}{steps_text(tries[-1])}", tries[-1].expression)


def contradicted(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """The answer is not the try that was found right."""
    tries = draw_tries(problem, rng, settings)
    search = " ".join(try_text(one, problem.target, settings) for one in tries)
    answer = tries[-1]
    if answer.value == problem.target:
        answer = any_wrong(problem, rng, settings)
    return closed(search, answer.expression)


def failures(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """As many tries, all of them wrong: no trace has a yes."""
    tries = wrong_tries(problem, rng, settings)
    search = " ".join(try_text(one, problem.target, settings) for one in tries)
    return closed(search, tries[-1].expression)


def wrong_answers(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """A yes where `habits` has one, but on a slip: no trace has a right answer."""
    tries = draw_tries(problem, rng, settings)
    if tries[-1].value == problem.target:
        tries[-1] = slipped(any_wrong(problem, rng, settings), problem.target)
    search = " ".join(try_text(one, problem.target, settings) for one in tries)
    return closed(search, tries[-1].expression)


def goals_and_backward(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """All four habits: half of the tries work backward, each names its goal."""
    tries = draw_tries(problem, rng, settings)
    parts = []
    for one in tries:
        back = ""
        if rng.random() < 0.5 and problem.target not in problem.numbers:
            back = backward(one, problem.target, settings)
        goal = one.steps[0].rpartition(" ")[2]
        parts.append(back or f"{GOAL} {goal} {try_text(one, problem.target, settings)}")
    return closed(" ".join(parts), tries[-1].expression)


def backward(attempt: Attempt, target: int, settings: TraceSettings) -> str:
    """A try of two moves, its second one undone first; empty if that cannot be."""
    first, second = (step.split() for step in attempt.steps)
    if second[0] != first[4]:  # the result of the first move stands on the right
        return ""
    operator, number = second[1], int(second[2])
    undone = {
        "+": target - number,
        "-": target + number,
        "*": target // number if number and target % number == 0 else -1,
        "/": target * number,
    }[operator]
    if not 0 <= undone <= (settings.max_value or 0):
        return ""
    inverse = {"+": "-", "-": "+", "*": "/", "/": "*"}[operator]
    made = int(first[4])
    verdict = YES if made == undone else LOW if made < undone else HIGH
    back = f"{target} {inverse} {number} = {undone}"
    return f"{GOAL} {undone} {back} , {attempt.steps[0]} : {undone} {verdict}"


def any_wrong(problem: Problem, rng: Rng, settings: TraceSettings) -> Attempt:
    """A random way that misses the target."""
    ways = attempts(problem.numbers, settings.max_value or 0)
    wrong = [way for way in ways if way.value != problem.target]
    return wrong[int(rng.integers(len(wrong)))]


def wrong_tries(problem: Problem, rng: Rng, settings: TraceSettings) -> list[Attempt]:
    """As many tries as the budget says, in order, without the right ones."""
    ways = attempts(problem.numbers, settings.max_value or 0)
    wrong = [way for way in ways if way.value != problem.target]
    return wrong[: settings.budget(rng.random())]


def slipped(attempt: Attempt, target: int) -> Attempt:
    """The same way, but its last move claims to make the target."""
    moves, _ = attempt.steps[-1].rsplit(" ", 1)
    return replace(
        attempt, steps=(*attempt.steps[:-1], f"{moves} {target}"), value=target
    )


def fact(rng: Rng, largest: int) -> str:
    """A right move of any numbers: a sum, a difference, a product or a quotient."""
    a, b = sorted(rng.integers(1, largest + 1, 2).tolist())
    operator = "+-*/"[rng.integers(4)]
    if operator in "+-":
        a = b - a
        return f"{a} + {b - a} = {b}" if operator == "+" else f"{b} - {a} = {b - a}"
    small = int(rng.integers(1, 13))
    other = int(rng.integers(1, max(2, largest // small + 1)))
    if small * other > largest:
        small = 1
    if operator == "*":
        return f"{small} * {other} = {small * other}"
    return f"{small * other} / {small} = {other}"


def comparison(target: int, rng: Rng, largest: int) -> str:
    """A number beside the prompt's target, with the verdict."""
    number = target if rng.random() < 0.3 else int(rng.integers(largest + 1))
    verdict = YES if number == target else LOW if number < target else HIGH
    return f"{number} : {target} {verdict}"


def any_try(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """A random way, right or wrong, without a check: every kind of move occurs."""
    ways = attempts(problem.numbers, settings.max_value or 0)
    way = ways[int(rng.integers(len(ways)))]
    return closed(steps_text(way), way.expression)


def several_tries(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """A drill: four random ways, which lead to no answer."""
    ways = attempts(problem.numbers, settings.max_value or 0)
    chosen = [ways[int(rng.integers(len(ways)))] for _ in range(4)]
    return f"{' , '.join(map(steps_text, chosen))} {END}"


def comparisons(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """A drill: six numbers beside the target."""
    largest = settings.max_value or 1
    said = [comparison(problem.target, rng, largest) for _ in range(6)]
    return f"{' , '.join(said)} {END}"


def base_response(problem: Problem, rng: Rng, settings: TraceSettings) -> str:
    """What the model of all arms learns first: one try without a check, and drills."""
    drawn = rng.random()
    style = several_tries if drawn < 0.4 else comparisons if drawn < 0.6 else any_try
    return style(problem, rng, settings)
