"""Countdown: problems, splits, prompts, verdicts."""

from dataclasses import FrozenInstanceError, replace
from itertools import combinations_with_replacement
from typing import Any

import pytest

from jaxrl_reason.grading.exact_arithmetic import examine
from jaxrl_reason.tasks.countdown import (
    CountdownSettings,
    CountdownTask,
    Problem,
    generate_problems,
    prompt,
)
from jaxrl_reason.tasks.countdown_search import attempts
from jaxrl_reason.tasks.generated_splits import SPLITS
from jaxrl_reason.tasks.task import Graded, Task

SMALL = CountdownSettings(max_number=6, max_value=20)
PUZZLE = Problem((3, 4, 5), 35, "( 3 + 4 ) * 5", 7)
TASK = CountdownTask.with_symbols(CountdownSettings())


def test_all_problems_of_three_numbers_to_ten() -> None:
    splits = generate_problems(CountdownSettings())
    every = [problem for name in SPLITS for problem in splits[name]]
    expected = {
        (numbers, attempt.value)
        for numbers in combinations_with_replacement(range(1, 11), 3)
        for attempt in attempts(numbers, 50)
        if attempt.value >= 1
    }
    assert {(p.numbers, p.target) for p in every} == expected
    assert len(every) == len(expected) == 2415
    assert sorted(p.problem_id for p in every) == list(range(2415))
    assert len(splits["test"]) >= 600
    assert 0.26 < len(splits["test"]) / 2415 < 0.29
    assert 0.09 < len(splits["validation"]) / 2415 < 0.12


@pytest.mark.parametrize("numbers", [(3,), (2, 3), (4,)])
def test_known_solutions_solve(numbers: tuple[int, ...]) -> None:
    for part in generate_problems(replace(SMALL, numbers=numbers)).values():
        for problem in part:
            evaluation = examine(problem.solution)
            assert evaluation.value == problem.target
            assert sorted(evaluation.numbers) == list(problem.numbers)
            assert 1 <= problem.target <= 20
            assert all(1 <= number <= 6 for number in problem.numbers)


@pytest.mark.parametrize("sizes", [(3,), (3, 4)])
def test_held_out_problems_have_new_numbers(sizes: tuple[int, ...]) -> None:
    splits = generate_problems(replace(SMALL, numbers=sizes))
    numbers = {name: {p.numbers for p in splits[name]} for name in SPLITS}
    ids = [p.problem_id for name in SPLITS for p in splits[name]]
    assert len(ids) == len(set(ids))
    for i, first in enumerate(SPLITS):
        assert {len(one) for one in numbers[first]} == set(sizes)
        for second in SPLITS[i + 1 :]:
            assert not numbers[first] & numbers[second]


def test_holding_out_pairs_shares_numbers_and_no_problem() -> None:
    splits = generate_problems(replace(SMALL, hold_out="pairs"))
    seen: set[tuple[tuple[int, ...], int]] = set()
    for part in splits.values():
        pairs = {(p.numbers, p.target) for p in part}
        assert not seen & pairs
        seen |= pairs
    train, test = ({p.numbers for p in splits[name]} for name in ("train", "test"))
    assert train & test


def test_settings_fix_the_problems_and_the_seed_moves_only_the_split() -> None:
    splits = generate_problems(SMALL)
    generate_problems.cache_clear()
    assert generate_problems(SMALL) == splits
    other = generate_problems(replace(SMALL, seed=1))
    assert other["test"] != splits["test"]
    everything = [
        sorted((p for part in one.values() for p in part), key=lambda p: p.problem_id)
        for one in (splits, other)
    ]
    assert everything[0] == everything[1]


def test_targets_of_one_set_of_numbers_are_bounded() -> None:
    splits = generate_problems(replace(SMALL, numbers=(4,), max_targets=3))
    counts: dict[tuple[int, ...], int] = {}
    for part in splits.values():
        for problem in part:
            counts[problem.numbers] = counts.get(problem.numbers, 0) + 1
    assert max(counts.values()) == 3
    drawn = {p.target for part in splits.values() for p in part}
    assert len(drawn) > 15  # drawn from all targets, not the smallest ones


def test_a_share_of_zero_leaves_a_split_empty() -> None:
    splits = generate_problems(replace(SMALL, validation_fraction=0.0))
    assert splits["validation"] == ()
    assert splits["test"]


def test_settings_without_problems_say_so() -> None:
    nothing = CountdownSettings(max_number=1, max_value=1, numbers=(2,))
    with pytest.raises(ValueError, match="at least one problem, got 1 problems"):
        generate_problems(nothing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": ()}, "numbers must be different sizes out of 2, 3 and 4, got"),
        ({"numbers": (5,)}, r"got \(5,\)"),
        ({"numbers": (3, 3)}, r"got \(3, 3\)"),
        ({"max_number": 0}, "max_number must be >= 1, got 0"),
        ({"max_value": 0}, "max_value must be >= 1, got 0"),
        ({"max_targets": 0}, "max_targets must be >= 1, got 0"),
        (
            {"validation_fraction": -0.1},
            "validation_fraction must be >= 0 and < 1, got -0.1",
        ),
        ({"test_fraction": 1.0}, "test_fraction must be >= 0 and < 1, got 1.0"),
        (
            {"test_fraction": float("nan")},
            "test_fraction must be >= 0 and < 1, got nan",
        ),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            r"validation_fraction \+ test_fraction must be < 1, got 1.0",
        ),
        ({"hold_out": "x"}, "hold_out must be 'numbers' or 'pairs', got 'x'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_settings_out_of_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CountdownSettings(**changes)  # type: ignore[arg-type]


def test_settings_and_problems_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PUZZLE.target = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="numbers must not be empty"):
        Problem((), 3, "3", 0)


def test_symbol_prompt() -> None:
    assert prompt(PUZZLE) == "3 4 5 : 35 <think>"
    ids = TASK.prompt_tokens(PUZZLE)
    assert TASK.tokenizer.decode(ids) == "3 4 5 : 35 <think>"
    assert len(ids) == 6


@pytest.mark.parametrize("style", ["base", "qwen-instruct"])
def test_text_prompts(style: str) -> None:
    text = prompt(PUZZLE, style)
    assert "Using the numbers [3, 4, 5], create an equation that equals 35." in text
    assert "basic arithmetic operations (+, -, *, /)" in text
    assert "each number can only be used once" in text
    assert "<answer> (1 + 2) / 3 </answer>" in text
    assert text.endswith("Let me solve this step by step.\n<think>")
    if style == "base":
        assert text.startswith("A conversation between User and Assistant.")
        assert "\nUser: Using" in text
        assert "\nAssistant: Let me" in text
    else:
        assert text.count("<|im_start|>") == 3
        assert text.count("<|im_end|>") == 2


def test_unknown_style_is_named() -> None:
    message = "symbols, base, qwen-instruct, got 'chat'"
    with pytest.raises(ValueError, match=message):
        prompt(PUZZLE, "chat")


def test_the_task_as_the_training_loop_sees_it() -> None:
    task: Task[Problem] = TASK
    assert task.name == "countdown"
    closing, end = task.eos_token_ids
    assert task.tokenizer.decode([closing, end]) == "</answer> <end>"
    assert task.tokenizer.vocab_size == 69
    wide = CountdownTask.with_symbols(CountdownSettings(max_number=60, max_value=50))
    assert wide.tokenizer.encode("60")


def test_verdicts() -> None:
    right = "3 + 4 = 7 , 7 * 5 = 35 yes </think> <answer> ( 3 + 4 ) * 5 </answer>"
    parsed = "( 3 + 4 ) * 5"
    assert TASK.grade(PUZZLE, right, False) == Graded(True, True, parsed)
    assert TASK.grade(PUZZLE, right, True) == Graded(False, True, parsed)
    wrong = right.replace("* 5 </answer>", "+ 5 </answer>")
    assert TASK.grade(PUZZLE, wrong, False) == Graded(False, True, "( 3 + 4 ) + 5")
    unclosed = "<answer> ( 3 + 4 ) * 5 </answer>"
    assert TASK.grade(PUZZLE, unclosed, False) == Graded(False, False, None)
    assert TASK.grade(PUZZLE, "3 + 4 =", True) == Graded(False, False, None)
    failed = TASK.grade(PUZZLE, None, False)  # type: ignore[arg-type]
    assert failed == Graded(False, False, None, failed=True)


def test_a_text_tokenizer_gets_the_text_prompt() -> None:
    class Characters:
        vocab_size, pad_token_id, eos_token_id = 256, 0, 1

        def encode(self, text: str) -> list[int]:
            return [ord(character) for character in text]

        def decode(self, ids: object) -> str:
            raise NotImplementedError

    task = CountdownTask(Characters(), (1,), "base")
    text = "".join(map(chr, task.prompt_tokens(PUZZLE)))
    assert text == prompt(PUZZLE, "base")


@pytest.mark.parametrize(
    ("numbers", "target"),
    [(("3", "4"), 7), ((3, 4), None), ((3, 4), "7"), ((3, True), 4)],
)
def test_numbers_as_text_or_no_target_are_refused(numbers: Any, target: Any) -> None:
    with pytest.raises(ValueError, match="numbers and target must be integers"):
        Problem(numbers, target, "", 0)
