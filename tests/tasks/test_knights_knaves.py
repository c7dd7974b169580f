"""Knights and Knaves: one solution each, words that mean it, grades."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from jaxrl_reason.tasks.generated_splits import SplitSettings, split_questions
from jaxrl_reason.tasks.knights_claims import Claim, solutions
from jaxrl_reason.tasks.knights_knaves import (
    KnightsQuestion,
    KnightsSettings,
    knights_knaves,
    knights_questions,
)
from jaxrl_reason.tasks.questions import Question, ungradable
from tests.tasks.test_questions import Bytes

SETTINGS = KnightsSettings(people=(2, 3, 5), depth=2, problems=300)


def true_of(sentence: str, roles: dict[str, bool]) -> bool:
    """The truth of a sentence, read from its words by a reader of its own."""
    sentence = sentence.strip()
    while "(" in sentence:
        sentence = re.sub(
            r"\(([^()]*)\)", lambda m: f"<{true_of(m[1], roles)}>", sentence
        )
    if found := re.fullmatch(r"if (.*) then (.*)", sentence):
        return not true_of(found[1], roles) or true_of(found[2], roles)
    if sentence.startswith("it is not true that "):
        return not true_of(sentence.removeprefix("it is not true that "), roles)
    for joint, joined in (
        (" if and only if ", lambda a, b: a == b),
        (" and ", lambda a, b: a and b),
        (" or ", lambda a, b: a or b),
    ):
        if joint in sentence:
            left, right = sentence.split(joint)
            return bool(joined(true_of(left, roles), true_of(right, roles)))
    if sentence in ("<True>", "<False>"):
        return sentence == "<True>"
    name, role = sentence.split(" is a ")
    return roles[name] is (role == "knight")


def test_every_puzzle_has_the_solution_of_its_words() -> None:
    splits = knights_questions(SETTINGS)
    for puzzle in splits["test"]:
        assert isinstance(puzzle, KnightsQuestion)
        found = re.findall(r"(\w+) says: (.*?)\.(?= \w+ says:| Who )", puzzle.question)
        assert [name for name, _ in found] == list(puzzle.names)
        assert puzzle.kind == str(len(found))
        ways = [
            dict(zip(puzzle.names, way, strict=True))
            for way in product((True, False), repeat=len(found))
        ]
        right = [
            way
            for way in ways
            if all(true_of(said, way) is way[name] for name, said in found)
        ]
        assert len(right) == 1
        roles = {name: role == "knight" for name, role in puzzle.roles.items()}
        assert right == [roles]


def test_the_same_settings_give_the_same_different_puzzles() -> None:
    splits = knights_questions(SETTINGS)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 210,
        "validation": 30,
        "test": 60,
    }
    every = [puzzle for part in splits.values() for puzzle in part]
    assert len({puzzle.question for puzzle in every}) == 300
    assert [puzzle.problem_id for puzzle in every] == list(range(300))
    knights_questions.cache_clear()
    assert knights_questions(SETTINGS) == splits
    assert knights_questions(replace(SETTINGS, seed=1)) != splits
    # More puzzles leave the first ones as they are.
    more = knights_questions(replace(SETTINGS, problems=310))["train"]
    assert more[:210] == splits["train"]
    assert ungradable(every) == {}


def test_the_answer_is_right_and_nothing_else() -> None:
    task, puzzle = knights_knaves(Bytes()), knights_questions(SETTINGS)["train"][1]
    assert isinstance(puzzle, KnightsQuestion)

    def grade(answer: str, truncated: bool = False):
        text = f"<think> Let me see. </think> <answer> {answer} </answer>"
        return task.grade(puzzle, text, truncated)

    right = grade(puzzle.answer)
    assert (right.correct, right.format_ok, right.parsed) == (True, True, puzzle.answer)
    assert not grade(puzzle.answer, truncated=True).correct
    for first, second in (("knight", "spy"), ("knave", "knight"), ("knight", "knave")):
        changed = puzzle.answer.replace(f"a {first}", f"a {second}", 1)
        if changed != puzzle.answer:
            assert not grade(changed).correct
    assert not grade(puzzle.answer.partition(",")[0]).correct
    assert not grade(puzzle.answer.replace(", ", " or ")).correct
    plain = task.grade(puzzle, puzzle.answer, False)
    assert (plain.correct, plain.format_ok) == (False, False)
    assert "<answer>" in Bytes().decode(task.prompt_tokens(puzzle))


def test_liars_without_end_have_no_solution() -> None:
    assert solutions([Claim("knave", 0), Claim("knight", 0)]) == []
    both = Claim("iff", parts=(Claim("knight", 0), Claim("knight", 1)))
    assert solutions([both, Claim("knave", 0)]) == [(False, True)]
    assert bool(Claim("not", parts=(both,)).holds(np.array([True, False])))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"people": (1,)}, "from 2 to 8, got \\(1,\\)"),
        ({"people": (3, 3)}, "must be different numbers"),
        ({"depth": 3}, "depth must be 1 or 2, got 3"),
        ({"problems": 0}, "problems must be >= 1"),
        ({"test_fraction": 1.0}, "test_fraction must be >= 0 and < 1"),
    ],
)
def test_wrong_settings(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KnightsSettings(**settings)  # type: ignore[arg-type]


def test_more_questions_than_there_are() -> None:
    def draw(rng: np.random.Generator, number: int) -> tuple[int, Question]:
        value = int(rng.integers(5))
        return value, Question(number, f"{value}?", "0")

    assert len(split_questions(SplitSettings(problems=5), draw)["train"]) == 4
    with pytest.raises(ValueError, match="as many as differ, got 6 and found 5"):
        split_questions(SplitSettings(problems=6), draw)
