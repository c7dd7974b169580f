"""The enumeration of all ways to combine numbers."""

from itertools import combinations_with_replacement, permutations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jaxrl_reason.grading.exact_arithmetic import examine
from jaxrl_reason.tasks.countdown_search import attempts


def reachable(numbers: tuple[int, ...], max_value: int) -> set[int]:
    """Values by brute force: split the numbers in two in every way and join."""
    if len(numbers) == 1:
        return {numbers[0]}
    values = set()
    for order in set(permutations(numbers)):
        for split in range(1, len(numbers)):
            for left in reachable(order[:split], max_value):
                for right in reachable(order[split:], max_value):
                    values |= {left + right, left * right, left - right}
                    if right and left % right == 0:
                        values.add(left // right)
    return {value for value in values if 0 <= value <= max_value}


def test_two_numbers_by_hand() -> None:
    found = [(a.steps, a.expression, a.value) for a in attempts((2, 6), 50)]
    assert found == [
        (("2 + 6 = 8",), "2 + 6", 8),
        (("2 * 6 = 12",), "2 * 6", 12),
        (("6 - 2 = 4",), "6 - 2", 4),
        (("6 / 2 = 3",), "6 / 2", 3),
    ]
    assert [a.expression for a in attempts((5, 7), 11)] == ["7 - 5"]
    assert [a.value for a in attempts((0, 3), 50)] == [3, 0, 3, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_every_reachable_value_is_found(size: int) -> None:
    for numbers in combinations_with_replacement(range(1, 8), size):
        values = {attempt.value for attempt in attempts(numbers, 30)}
        assert values == reachable(numbers, 30)


# Other processes may hold the machine for longer than an example takes.
@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=4).map(sorted))
def test_every_reachable_value_of_four_is_found(numbers: list[int]) -> None:
    values = {attempt.value for attempt in attempts(tuple(numbers), 20)}
    assert values == reachable(tuple(numbers), 20)


@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(1, 10), min_size=2, max_size=4).map(sorted))
def test_steps_and_expressions_are_right(numbers: list[int]) -> None:
    ways = attempts(tuple(numbers), 50)
    assert len({way.expression for way in ways}) == len(ways)
    for way in ways:
        evaluation = examine(way.expression)
        assert evaluation.value == way.value
        assert sorted(evaluation.numbers) == numbers
        table = list(numbers)
        for step in way.steps:
            left, operator, right, equals, result = step.split()
            assert operator in ("+", "-", "*", "/")
            assert equals == "="
            table.remove(int(left))
            table.remove(int(right))
            assert examine(f"{left} {operator} {right}").value == int(result)
            assert 0 <= int(result) <= 50
            table.append(int(result))
        assert table == [way.value]


def test_the_order_of_a_sum_does_not_make_another_way() -> None:
    sums = [
        a for a in attempts((1, 2, 3, 4), 50) if set(a.expression) <= set("1234 ()+")
    ]
    assert [a.expression for a in sums] == ["( ( 1 + 2 ) + 3 ) + 4"]
    texts = [a.expression for a in attempts((2, 3, 4), 50)]
    assert "( 2 * 3 ) * 4" in texts
    assert "( 2 * 4 ) * 3" not in texts
    # Different ways of the same value stay.
    assert "( 3 - 2 ) * 4" in texts
    assert "4 / ( 3 - 2 )" in texts
