"""Decontamination and duplicates: worked texts, short ones, contradictions."""

import time
from collections.abc import Callable

import pytest

from jaxrl_reason.data.decontamination import contaminated
from jaxrl_reason.data.hygiene import (
    deduplicate,
    digit_free_key,
    digit_free_matches,
    ngram_jaccard,
    word_ngrams,
)
from tests.losses.worked import EXAMPLES

A = "Find the sum of all positive integers n such that n squared divides 2024"
B = "Find the  SUM of all positive integers n such that n cubed divides 2025"


def test_worked_ngrams() -> None:
    grams = [word_ngrams(text, 8) for text in (A, B)]
    longer = [word_ngrams(text, 13) for text in (A, B)]
    counts = [len(grams[0]), len(grams[0] & grams[1]), len(longer[0] & longer[1])]
    assert counts == EXAMPLES["ng"]
    assert ngram_jaccard(A, B, 5) == EXAMPLES["ng.jac5"]


def test_worked_keys() -> None:
    texts = ["Find x: 3x + 12 = 27.", "find X: 5x+7=90"]
    assert [digit_free_key(text) for text in texts] == EXAMPLES["clean"]
    assert digit_free_matches(texts[1:], texts[:1]) == [True]


def test_contamination_depends_on_n() -> None:
    assert contaminated([A], [B], n=8) == [True]
    assert contaminated([A], [B], n=13) == [False]
    assert contaminated([A], [], n=8) == [False]
    assert contaminated([], [B], n=8) == []


def test_white_space_and_case_do_not_hide_a_benchmark() -> None:
    hidden = "Well: " + B.upper().replace(" ", "\n\t ")
    assert contaminated([hidden], [B], n=8) == [True]


def test_a_short_prompt_is_compared_as_a_whole() -> None:
    def check(flag: Callable) -> None:
        short = ["What is  2 + 3?", "what is 2 + 4?", A]
        assert flag(short, ["What is 2 + 3?"], 8) == [True, False, False]

    check(lambda prompts, benchmark, n: contaminated(prompts, benchmark, n=n))

    def by_ngrams_alone(prompts: list[str], benchmark: list[str], n: int) -> list[bool]:
        known = set().union(*(word_ngrams(text, n) for text in benchmark))
        return [bool(word_ngrams(text, n) & known) for text in prompts]

    with pytest.raises(AssertionError):
        check(by_ngrams_alone)


def test_empty_texts_match_nothing() -> None:
    assert contaminated(["", "  "], ["", A], n=8) == [False, False]
    assert digit_free_matches(["1 + 1", "", "?"], ["2 + 3", ""]) == [False] * 3


def test_keys_may_have_to_be_long() -> None:
    assert digit_free_matches(["Find 3"], ["find 5"]) == [True]
    assert digit_free_matches(["Find 3"], ["find 5"], min_length=5) == [False]


def test_duplicates_keep_the_first() -> None:
    found = deduplicate(["a b", "c", "A  B", "a b ", "d"], ["1", "2", "1", " 1", "3"])
    assert (found.kept, found.duplicates, found.conflicting) == ((0, 1, 4), (2, 3), ())


def test_contradictions_go_as_a_whole() -> None:
    prompts, answers = ["q", "r", "Q", "q", "r"], ["1", "5", "2", "1", "5"]

    def check(kept: tuple[int, ...]) -> None:
        assert kept == (1,)

    found = deduplicate(prompts, answers)
    check(found.kept)
    assert (found.duplicates, found.conflicting) == ((4,), (0, 2, 3))
    first_seen = tuple(i for i, p in enumerate(prompts) if p not in prompts[:i])
    with pytest.raises(AssertionError):
        check(first_seen)  # keeps an answer that another copy denies


def test_every_position_is_somewhere_once() -> None:
    prompts = [f"question {i % 7}" for i in range(60)]
    answers = [str(i % 2 if i % 7 == 3 else 0) for i in range(60)]
    found = deduplicate(prompts, answers)
    every = found.kept + found.duplicates + found.conflicting
    assert sorted(every) == list(range(60))
    assert len(found.kept) == 6
    assert deduplicate([], []).kept == ()


def test_time_is_linear() -> None:
    text = "word " * 100_000
    start = time.process_time()
    assert contaminated([text], [text], n=8) == [True]
    assert digit_free_matches([text], [text]) == [True]
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contaminated([A], [B], n=0), "n must be >= 1, got 0"),
        (lambda: ngram_jaccard(A, B, 0), "n must be >= 1, got 0"),
        (lambda: digit_free_matches([A], [B], min_length=0), "min_length must be >= 1"),
        (lambda: deduplicate(["a"], []), "answers must be one per prompt, 1, got 0"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
