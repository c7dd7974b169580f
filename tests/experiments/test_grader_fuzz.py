"""A short search for wrong answers that are accepted, always the same."""

import itertools
import random
from collections import Counter

import pytest

from experiments.benchmarks import grader_fuzz


def test_no_wrong_answer_of_random_expressions_is_accepted() -> None:
    found = itertools.islice(grader_fuzz.tree_search(random.Random(0)), 300)
    counts = Counter(kind for kind, *_ in found)
    assert counts["wrong accepted"] == 0
    assert counts["as it must be"] > 290


def test_no_changed_text_is_accepted_that_means_something_else() -> None:
    pytest.importorskip("math_verify")
    search = grader_fuzz.text_search(random.Random(0), grader_fuzz.GOLDS)
    counts = Counter(kind for kind, *_ in itertools.islice(search, 1500))
    assert counts["wrong accepted"] == 0
    assert counts["unclear"] < 20


def test_the_search_finds_a_grader_that_accepts_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lenient(response: str, gold: str) -> object:
        class Grade:
            outcome = grader_fuzz.RIGHT

        return Grade

    monkeypatch.setattr(grader_fuzz, "grade_final_answer", lenient)
    found = itertools.islice(grader_fuzz.tree_search(random.Random(0)), 20)
    assert "wrong accepted" in {kind for kind, *_ in found}
