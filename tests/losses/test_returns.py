"""Returns and GAE: worked numbers, identities, masked tokens, refusals."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_reason.losses as lib
from jaxrl_reason.losses import kl_in_reward, rewards_at_end
from tests.losses import reference
from tests.losses.worked import EXAMPLES, MASK, OLD, REF, close

# gamma and lam are traced here; the refusals below see them as numbers.
gae, discounted_returns = jax.jit(lib.gae), jax.jit(lib.discounted_returns)
REWARDS = np.array([[0.0, 0.0, 1.0, np.nan]])
VALUES = np.array([[0.5, 0.6, 0.7, 9.0]])
ENDED = np.array([[1, 1, 1, 0]])


def random_inputs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, 3, 6)).astype(np.float32)
    return rewards, values, rng.random((3, 6)) < 0.7


@pytest.mark.parametrize(("gamma", "key"), [(1.0, "ret.g1"), (0.9, "ret.g09")])
def test_worked_returns(gamma: float, key: str) -> None:
    close(discounted_returns(REWARDS, ENDED, gamma=gamma)[0], EXAMPLES[key])


def test_returns_are_carried_through_masked_tokens() -> None:
    rewards, mask = np.array([[0.0, 0.0, 0.0, 1.0]]), np.array([[1, 0, 1, 1]])
    close(discounted_returns(rewards, mask)[0], EXAMPLES["mask.carry"])


def test_worked_returns_with_kl_in_the_reward() -> None:
    rewards = kl_in_reward(np.array([1, 0, 1, 0.5]), OLD, REF, MASK, coef=0.1)
    close(discounted_returns(rewards, MASK), EXAMPLES["rpp.ret"])
    values = np.array(
        [[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 7, 7], [0.3, 0.3, 0.3, 7], [0.5, 7, 7, 7]]
    )
    advantages, targets = gae(rewards, values, MASK, lam=0.95)
    close(advantages, EXAMPLES["full.adv"])
    close(targets, EXAMPLES["full.ret"])


@pytest.mark.parametrize(("lam", "name"), [(0.95, "95"), (1.0, "1"), (0.0, "0")])
def test_worked_gae(lam: float, name: str) -> None:
    advantages, targets = gae(REWARDS, VALUES, ENDED, lam=lam)
    close(advantages[0], EXAMPLES[f"gae.adv{name}"])
    close(targets[0], EXAMPLES[f"gae.ret{name}"])


def test_worked_gae_steps_over_a_masked_token() -> None:
    advantages, _ = gae(REWARDS, VALUES, np.array([[1, 0, 1, 0]]), lam=0.95)
    close(advantages[0], EXAMPLES["gae.skip"])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
)
def test_values_are_the_references(seed: int, gamma: float, lam: float) -> None:
    rewards, values, mask = random_inputs(seed)
    close(
        discounted_returns(rewards, mask, gamma=gamma),
        reference.discounted_returns(rewards, mask, gamma),
    )
    found = gae(rewards, values, mask, gamma=gamma, lam=lam)
    expected = reference.gae(rewards, values, mask, gamma, lam)
    for x, y in zip(found, expected, strict=True):
        close(x, y)


def test_lambda_may_differ_by_sequence() -> None:
    rewards, values, mask = random_inputs(0)
    lam = np.array([0.0, 0.5, 1.0], np.float32)
    found = jax.jit(gae)(rewards, values, mask, lam=lam)
    for x, y in zip(found, reference.gae(rewards, values, mask, 1.0, lam), strict=True):
        close(x, y)


def test_identities() -> None:
    rewards, values, mask = random_inputs(1)
    returns = discounted_returns(rewards, mask)
    advantages, targets = gae(rewards, values, mask)
    close(targets, returns)
    close(advantages, np.where(mask, returns - values, 0))
    close(gae(rewards, 0 * values, mask)[0], returns)


# A response that was cut off.

TAIL = np.array([2.0, 0.0, -1.0], np.float32)


def test_a_value_after_the_end_by_hand() -> None:
    rewards, mask = np.array([[0.0, 1.0, 9.0]]), np.array([[1, 1, 0]])
    values, tail = np.array([[0.5, 0.25, 9.0]]), np.array([2.0])
    returns = discounted_returns(rewards, mask, gamma=0.5, bootstrap=tail)
    close(returns, [[1.0, 2.0, 0.0]])  # 0.5 (1 + 0.5 * 2), 1 + 0.5 * 2
    advantages, targets = gae(rewards, values, mask, gamma=0.5, lam=0.5, bootstrap=tail)
    # deltas 0 + 0.125 - 0.5 and 1 + 1 - 0.25
    close(advantages, [[-0.375 + 0.25 * 1.75, 1.75, 0.0]])
    close(targets, [[0.5625, 2.0, 0.0]])


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.95), (1.0, 0.0)])
def test_a_value_after_the_end_is_the_references(gamma: float, lam: float) -> None:
    rewards, values, mask = random_inputs(4)
    close(
        discounted_returns(rewards, mask, gamma=gamma, bootstrap=TAIL),
        reference.discounted_returns(rewards, mask, gamma, TAIL),
    )
    found = gae(rewards, values, mask, gamma=gamma, lam=lam, bootstrap=TAIL)
    expected = reference.gae(rewards, values, mask, gamma, lam, TAIL)
    for x, y in zip(found, expected, strict=True):
        close(x, y)


def test_a_value_after_the_end_is_that_of_the_rest() -> None:
    """Cutting a response and handing its value on loses nothing."""
    rewards, values, _ = random_inputs(5)
    ones = np.ones((3, 6))
    settings = {"gamma": 0.9, "lam": 1.0}
    whole = discounted_returns(rewards, ones, gamma=0.9)
    rest = np.asarray(whole)[:, 4]
    head = (rewards[:, :4], values[:, :4], ones[:, :4])
    close(discounted_returns(head[0], head[2], gamma=0.9, bootstrap=rest), whole[:, :4])
    close(gae(*head, **settings, bootstrap=rest)[1], whole[:, :4])
    # 0 is a response that ended.
    zeros = np.zeros(3)
    close(gae(*head, **settings, bootstrap=zeros)[0], gae(*head, **settings)[0])


def test_rewards_at_end() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    found = rewards_at_end(np.array([2.0, 3.0, 4.0]), mask)
    assert found.tolist() == [[0, 0, 0, 2], [0, 0, 0, 0], [0, 4, 0, 0]]
    nans = rewards_at_end(np.array([2.0, np.nan, 4.0]), mask)
    assert np.isfinite(nans).all()


def test_nothing_is_differentiated() -> None:
    rewards, values, mask = random_inputs(2)

    def total(rewards: jax.Array, values: jax.Array) -> jax.Array:
        advantages, targets = gae(rewards, values, mask)
        return (advantages + targets + discounted_returns(rewards, mask)).sum()

    for grad in jax.grad(total, (0, 1))(rewards, values):
        assert (grad == 0).all()


def test_vmap_and_bfloat16() -> None:
    rewards, values, mask = random_inputs(3)
    found = jax.vmap(gae)(
        *(jnp.asarray(np.stack([x, x])) for x in (rewards, values, mask))
    )
    for x, y in zip(found, gae(rewards, values, mask), strict=True):
        close(x, np.stack([y, y]))
    coarse = jnp.asarray(rewards, jnp.bfloat16)
    found = discounted_returns(coarse, mask, gamma=0.9)
    assert found.dtype == jnp.float32
    close(found, discounted_returns(coarse.astype(jnp.float32), mask, gamma=0.9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, v, m: lib.gae(r, v[:, :2], m), "and one shape"),
        (lambda r, v, m: lib.gae(r[0], v[0], m[0]), "2 axes"),
        (
            lambda r, v, m: lib.gae(r, v, m, gamma=1.1),
            r"gamma must be in \[0, 1\], got 1.1",
        ),
        (
            lambda r, v, m: lib.gae(r, v, m, lam=-0.1),
            r"lam must be in \[0, 1\], got -0.1",
        ),
        (lambda r, v, m: lib.gae(r, v, m, lam=np.ones(2)), r"\[3\], got \[2\]"),
        (
            lambda r, v, m: lib.gae(r, v, m, bootstrap=np.ones((3, 6))),
            r"bootstrap must have shape \[3\], one per row of the mask, got \[3, 6\]",
        ),
        (lambda r, v, m: lib.discounted_returns(r[0], m), "2 axes"),
        (lambda r, v, m: lib.discounted_returns(r, m, gamma=np.nan), "got nan"),
        (lambda r, v, m: rewards_at_end(r, m), r"shape \[3\]"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*random_inputs(0))
