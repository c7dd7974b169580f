"""Groups that a stage leaves over: what the next one can use of them."""

import dataclasses
from types import SimpleNamespace

import numpy as np

from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rollouts import concatenate
from jaxrl_reason.rl.stages import (
    fit_surplus,
)
from tests.rl.helpers import (
    SETTINGS,
    fake_rollouts,
    toy_dapo,
)


def fitted(surplus, method=None, **settings):
    s = dataclasses.replace(SETTINGS, **settings)
    return fit_surplus(
        surplus, SimpleNamespace(settings=s, method=method or toy_dapo())
    )


MIXED = [[True, False, True, False]] * 3


def test_surplus_is_padded_to_a_longer_limit_and_rewarded_anew():
    lengths = [[6, 1, 2, 3]] * 3
    surplus = fake_rollouts(MIXED, lengths=lengths)
    kept, dropped = fitted(surplus, max_new_tokens=9, prompt_width=5)
    assert dropped == 0
    assert (kept.tokens.shape[-1], kept.prompt_tokens.shape[-1]) == (9, 5)
    np.testing.assert_array_equal(kept.tokens[..., :6], surplus.tokens)
    np.testing.assert_array_equal(
        kept.sampler_logprobs[..., :6], surplus.sampler_logprobs
    )
    assert not kept.tokens[..., 6:].any()
    assert not kept.prompt_tokens[..., 3:].any()
    np.testing.assert_array_equal(kept.lengths, surplus.lengths)
    np.testing.assert_array_equal(kept.rewards, toy_dapo().rewards(surplus))
    fresh = fake_rollouts(MIXED, width=9)
    fresh = dataclasses.replace(fresh, prompt_tokens=np.zeros((3, 5), int))
    assert len(concatenate([kept, fresh]).problem_ids) == 6


def test_surplus_is_cut_only_where_nothing_but_padding_goes():
    lengths = [[4, 1, 2, 3], [5, 1, 1, 1], [4, 4, 4, 4]]
    surplus = fake_rollouts(MIXED, lengths=lengths)
    kept, dropped = fitted(surplus, max_new_tokens=4)
    assert dropped == 1
    assert kept.problem_ids.tolist() == [0, 2]
    np.testing.assert_array_equal(kept.tokens, surplus.tokens[[0, 2], :, :4])


def test_surplus_that_a_stage_cannot_use_is_dropped_and_counted():
    surplus = fake_rollouts(MIXED)
    assert fitted(None) == (None, 0)
    assert fitted(surplus, group_size=8) == (None, 3)
    assert fitted(surplus, method=grpo()) == (None, 3)
    # Three groups fill a batch of two: no step may go without samples of its own.
    kept, dropped = fitted(surplus, prompts_per_step=2)
    assert (kept.problem_ids.tolist(), dropped) == ([2], 2)
    assert fitted(surplus, prompts_per_step=1, updates_per_rollout=1) == (None, 3)
