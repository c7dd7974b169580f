"""Prompts of different lengths as one array."""

import pytest

from jaxrl_reason.sampler.sample_loop import pad_prompts


def test_prompts_are_padded_on_the_right() -> None:
    tokens, lengths = pad_prompts([[3], [4, 4], [4, 4, 4]], [0, 1, 5], 4)
    assert tokens.tolist() == [[3, 0, 0, 0], [4, 4, 0, 0], [4, 4, 4, 0]]
    assert lengths.tolist() == [1, 2, 3]


def test_prompts_are_padded_to_few_widths() -> None:
    tokens, lengths = pad_prompts([[1] * 70, [2]], [0, 1], 100, multiple_of=64)
    assert tokens.shape == (2, 100)
    assert lengths.tolist() == [70, 1]
    assert tokens.sum(axis=1).tolist() == [70, 2]


@pytest.mark.parametrize(("length", "problem_id"), [(0, 4), (101, 5)])
def test_a_prompt_that_does_not_fit_is_named(length: int, problem_id: int) -> None:
    said = rf"1 to 100 tokens \(the context\), got {length} for problem {problem_id}"
    with pytest.raises(ValueError, match=said):
        pad_prompts([[1] * length], [problem_id], 100, limit="the context")
    said = f"1 to 100 tokens, got {length} for problem {problem_id}"
    with pytest.raises(ValueError, match=said):
        pad_prompts([[1] * length], [problem_id], 100)
