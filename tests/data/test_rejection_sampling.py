"""Which responses are kept for fine-tuning."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxrl_reason.data.rejection_sampling import (
    correct_and_complete,
    deduplicate_and_cap,
    equation_signature,
    needs_hint,
)

CORRECT = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
TRUNCATED = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], bool)


def test_right_answers_of_truncated_text_are_not_kept() -> None:
    kept = correct_and_complete(CORRECT, TRUNCATED)
    assert kept.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    failed = np.zeros((3, 4), bool)
    failed[0, 0] = True
    kept = correct_and_complete(CORRECT, TRUNCATED, failed=failed)
    assert kept.sum() == 1


def test_duplicates_go_and_the_first_stays() -> None:
    texts = [["a", "a", "b", "b"], list("wxyz"), ["a", "b", "a", "b"]]
    kept = deduplicate_and_cap(np.ones((3, 4)), texts, max_per_prompt=4, seed=0)
    assert kept.tolist() == [[1, 0, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    # What is not kept does not stand for another.
    keep = np.array([[False, True, True, True]])
    kept = deduplicate_and_cap(keep, texts[:1], max_per_prompt=4, seed=0)
    assert kept.tolist() == [[0, 1, 1, 0]]


def test_the_cap_is_random_and_seeded_by_the_problem() -> None:
    keep, texts = np.ones((2, 8), bool), [list(range(8)), list(range(8))]

    def kept(seed: int, ids: list[int]) -> np.ndarray:
        return deduplicate_and_cap(
            keep, texts, max_per_prompt=3, seed=seed, problem_ids=ids
        )

    found = kept(0, [7, 5])
    assert found.sum(1).tolist() == [3, 3]
    np.testing.assert_array_equal(kept(0, [5, 7]), found[::-1])
    assert len({kept(s, [7, 5])[0].tobytes() for s in range(8)}) > 1
    # Every response has its chance.
    assert np.sum([kept(s, [7, 5])[0] for s in range(40)], 0).min() > 0


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        ("So 2 * 3 = 6, then 6+1=7.", ("2*3=6", "6+1=7")),
        ("Add: 6 + 1 = 7", ("6+1=7",)),
        ("no equation, 3 apples", ()),
        ("== and = alone", ()),
        ("4.5/3=1.5", ("4.5/3=1.5",)),
    ],
)
def test_equation_signature(text: str, signature: tuple[str, ...]) -> None:
    assert equation_signature(text) == signature


def test_a_signature_of_a_long_text_is_quick() -> None:
    assert equation_signature("1=" * 200_000 + "x" + " " * 200_000)


def test_star_hints_where_nothing_was_learnt() -> None:
    assert needs_hint(CORRECT, TRUNCATED).tolist() == [False, True, True]
    failed = np.zeros((3, 4), bool)
    failed[1] = True
    found = needs_hint(CORRECT, TRUNCATED, failed=failed)
    assert found.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correct_and_complete(CORRECT, TRUNCATED[:1]), r"truncated .*\[1, 4\]"),
        (lambda: correct_and_complete(CORRECT[0], TRUNCATED), r"correct .*\[4\]"),
        (
            lambda: deduplicate_and_cap(CORRECT, [["a"]] * 3, max_per_prompt=1, seed=0),
            r"3 lists of 4, got lists of \[1, 1, 1\]",
        ),
        (
            lambda: deduplicate_and_cap(
                CORRECT, [list("abcd")] * 3, max_per_prompt=0, seed=0
            ),
            "max_per_prompt must be >= 1, got 0",
        ),
        (
            lambda: deduplicate_and_cap(
                CORRECT, [list("abcd")] * 3, max_per_prompt=1, seed=0, problem_ids=[1]
            ),
            "problem_ids must be 3 numbers, got 1",
        ),
        (
            lambda: deduplicate_and_cap(
                CORRECT, [list("abcd")] * 3, max_per_prompt=1, seed=-1
            ),
            "must be >= 0, got -1",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
