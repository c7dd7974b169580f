"""OPO and ReMax: worked numbers, properties, edge cases, refusals."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    discounted_returns,
    dr_grpo_advantages,
    opo_advantages,
    remax_advantages,
    rewards_at_end,
)
from tests.losses.worked import EXAMPLES, MASK, close

REWARDS = np.array([1, 0, 0.25, 0.75])
LENGTHS, NONE = np.array([4, 2, 3, 1]), np.zeros(4, int)


compiled = jax.jit(partial(opo_advantages, num_groups=2))


def opo(rewards: Any, lengths: Any = LENGTHS, ids: Any = NONE, **rest: Any) -> Any:
    return np.asarray(compiled(rewards, lengths, ids, **rest))


def test_worked_numbers() -> None:
    close(opo(REWARDS), EXAMPLES["opo.adv"])
    close(REWARDS - opo(REWARDS), np.full(4, EXAMPLES["opo.b"]))
    greedy = np.full(4, 0.25)
    close(remax_advantages(REWARDS, greedy), EXAMPLES["remax"])


def test_opo_with_equal_lengths_is_the_plain_mean() -> None:
    plain = dr_grpo_advantages(REWARDS, NONE, num_groups=1)
    close(opo(REWARDS, np.full(4, 7)), plain)
    # No length tells the responses apart either.
    close(opo(REWARDS, NONE), plain)


def test_opo_weighs_by_length_and_not_by_its_inverse() -> None:
    def check(found: np.ndarray) -> None:
        close((LENGTHS * found).sum(), 0.0)

    check(opo(REWARDS))
    with pytest.raises(AssertionError):
        check(opo(REWARDS, 1 / LENGTHS))
    with pytest.raises(AssertionError):
        check(np.asarray(dr_grpo_advantages(REWARDS, NONE, num_groups=1)))


def test_opo_lengths_only_count_inside_their_group() -> None:
    ids = np.array([0, 1, 0, 1])
    close(opo(REWARDS, ids=ids), [0.75 * 3 / 7, -0.25, -0.75 * 4 / 7, 0.5])
    out = opo(REWARDS, np.array([4.0, 2.0, np.nan, 1.0]), valid=np.arange(4) != 2)
    close(out, opo(REWARDS, np.array([4, 2, 0, 1]), np.array([0, 0, 9, 0])))
    assert out[2] == 0
    assert np.isfinite(out).all()


def test_opo_takes_long_responses() -> None:
    lengths = np.array([32768, 1, 16384, 100], np.int32)
    baseline = (lengths * REWARDS).sum() / lengths.sum()
    close(opo(REWARDS, lengths), REWARDS - baseline)


@pytest.mark.parametrize("lengths", [LENGTHS[:3], LENGTHS[:, None]])
def test_opo_refuses_other_shapes(lengths: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rewards and lengths must have 1 axes"):
        opo(REWARDS, lengths)


def test_remax_leaves_out_what_is_not_valid() -> None:
    greedy, valid = np.array([0.25, np.nan, 0.25, 0.25]), np.array([1, 0, 1, 1])
    found = remax_advantages(REWARDS, greedy, valid=valid)
    close(found, [0.75, 0, 0, 0.5])
    assert np.isnan(remax_advantages(REWARDS, greedy)[1])


def test_remax_is_exactly_zero_where_nothing_differs() -> None:
    same = np.full(11, 0.1, np.float32)
    assert (remax_advantages(same, same) == 0).all()


def test_remax_over_tokens() -> None:
    greedy = np.full(4, 0.25, np.float32)
    rewards = rewards_at_end(REWARDS, MASK)
    tokens = discounted_returns(rewards, MASK) - greedy[:, None]
    each = np.asarray(remax_advantages(REWARDS, greedy))
    close(np.where(MASK, tokens, 0), np.where(MASK, each[:, None], 0))


def test_remax_jit_vmap_grad_and_types() -> None:
    greedy = np.full(4, 0.25)
    estimate = jax.jit(remax_advantages)
    found = estimate(REWARDS, greedy)
    assert found.dtype == jnp.float32
    close(estimate(jnp.asarray(REWARDS, jnp.bfloat16), greedy), found)
    both = jax.vmap(remax_advantages)(np.stack([REWARDS] * 2), np.stack([greedy] * 2))
    close(both[1], found)
    slope = jax.grad(lambda r, g: estimate(r, g).sum(), argnums=(0, 1))
    for grad in slope(REWARDS.astype(np.float32), greedy.astype(np.float32)):
        assert (np.asarray(grad) == 0).all()


def test_remax_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"greedy_rewards \[3\]"):
        remax_advantages(REWARDS, REWARDS[:3])
    with pytest.raises(ValueError, match=r"valid \[2\]"):
        remax_advantages(REWARDS, REWARDS, valid=np.ones(2))
    with pytest.raises(ValueError, match="1 axes"):
        remax_advantages(np.ones((2, 2)), np.ones((2, 2)))
