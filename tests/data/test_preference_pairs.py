"""Pairs of correct and wrong responses from graded groups."""

from typing import Any

import numpy as np
import pytest

from jaxrl_reason.data.preference_pairs import PreferencePairs, build_pairs

CORRECT = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0]])
NOT_TRUNCATED = np.zeros((4, 5), bool)
LENGTHS = np.full((4, 5), 10)


def build(**change: Any) -> PreferencePairs:
    given = {
        "correct": CORRECT,
        "truncated": NOT_TRUNCATED,
        "lengths": LENGTHS,
        "max_pairs": 100,
        "seed": 0,
        **change,
    }
    arrays = [given.pop(name) for name in ("correct", "truncated", "lengths")]
    return build_pairs(*arrays, **given)


def triples(pairs: PreferencePairs) -> list[tuple[int, int, int]]:
    columns = (pairs.prompt, pairs.chosen, pairs.rejected)
    return list(zip(*(x.tolist() for x in columns), strict=True))


def test_every_combination_of_mixed_prompts_once() -> None:
    pairs = build()
    assert len(pairs) == 12
    assert len(set(triples(pairs))) == 12
    assert set(pairs.prompt.tolist()) == {0, 3}
    assert CORRECT[pairs.prompt, pairs.chosen].all()
    assert not CORRECT[pairs.prompt, pairs.rejected].any()


def test_the_cap_uses_responses_equally() -> None:
    for seed in range(10):
        pairs = build(max_pairs=3, seed=seed)
        assert np.bincount(pairs.prompt).tolist() == [3, 0, 0, 3]
        first = pairs.prompt == 0
        assert len(set(pairs.rejected[first].tolist())) == 3
        assert len(set(pairs.chosen[first].tolist())) == 2


def test_truncated_failed_and_empty_responses_are_left_out() -> None:
    out = NOT_TRUNCATED.copy()
    out[0, 0] = out[0, 2] = True  # a correct and a wrong one
    for change in (
        {"truncated": out},
        {"failed": out},
        {"lengths": np.where(out, 0, LENGTHS)},
    ):
        pairs = build(**change)
        found = [t for t in triples(pairs) if t[0] == 0]
        assert sorted(found) == [(0, 1, 3), (0, 1, 4)]


def test_lengths_can_be_held_alike() -> None:
    lengths = np.array([[10, 30, 10, 20, 40]] * 4)
    pairs = build(lengths=lengths, max_length_ratio=2.0)
    found = sorted(t[1:] for t in triples(pairs) if t[0] == 0)
    assert found == [(0, 2), (0, 3), (1, 3), (1, 4)]
    one = build(lengths=lengths, max_length_ratio=1.0)
    assert (lengths[0][one.chosen] == lengths[0][one.rejected]).all()


def test_the_choice_is_the_seeds_and_the_problems() -> None:
    ids = [11, 12, 13, 14]
    found = build(max_pairs=2, problem_ids=ids)
    assert triples(build(max_pairs=2, problem_ids=ids)) == triples(found)
    choices = {tuple(triples(build(max_pairs=2, seed=s))) for s in range(8)}
    assert len(choices) > 1
    reordered = build(
        correct=CORRECT[::-1], max_pairs=2, problem_ids=ids[::-1]
    )  # the same prompts in another order
    back = sorted((3 - p, w, x) for p, w, x in triples(reordered))
    assert back == sorted(triples(found))


def test_no_mixed_prompt_gives_no_pairs() -> None:
    pairs = build(correct=np.ones((4, 5)))
    assert len(pairs) == 0
    assert pairs.chosen.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_pairs": 0}, "max_pairs must be >= 1, got 0"),
        ({"max_length_ratio": 0.5}, "max_length_ratio must be >= 1, got 0.5"),
        ({"lengths": LENGTHS[:2]}, r"correct and lengths .*\[2, 5\]"),
        ({"truncated": NOT_TRUNCATED[0]}, r"correct and truncated .*\[5\]"),
        ({"failed": NOT_TRUNCATED[:, :1]}, r"correct and failed .*\[4, 1\]"),
        ({"problem_ids": [1]}, "problem_ids must be 4 numbers, got 1"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**change)
