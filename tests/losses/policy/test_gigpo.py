"""GiGPO: worked numbers, and the two groups in plain loops."""

from typing import Any

import jax
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from jaxrl_reason.losses import dr_grpo_advantages, grpo_advantages
from tests.losses.worked import close

GROUPS, STATES = 3, 4
gigpo_advantages = jax.jit(
    lib.gigpo_advantages, static_argnames=("num_groups", "num_states", "scale")
)


def normalised(x: np.ndarray, scale: bool) -> np.ndarray:
    if len(x) < 2 or x.max() == x.min():
        return np.zeros(len(x))
    return (x - x.mean()) / (np.std(x, ddof=1) + 1e-6 if scale else 1.0)


def reference(
    arrays: Any, gamma: float, weight: float, scale: bool, valid: np.ndarray
) -> np.ndarray:
    rewards, step_rewards, states, steps, groups, mask = arrays
    shape = states.shape
    here = [
        (i, k)
        for i, k in np.ndindex(*shape)
        if valid[i] and 0 <= groups[i] < GROUPS and 0 <= states[i, k] < STATES
    ]
    returns, of_steps, episode = np.zeros(shape), np.zeros(shape), np.zeros(len(states))
    for i, k in here:
        later = [j for h, j in here if h == i and j >= k]
        returns[i, k] = sum(gamma**n * step_rewards[i, j] for n, j in enumerate(later))
    for g in range(GROUPS):
        rows = np.flatnonzero((groups == g) & valid)
        episode[rows] = normalised(rewards[rows].astype(float), scale)
        for s in range(STATES):
            met = [(i, k) for i, k in here if groups[i] == g and states[i, k] == s]
            found = normalised(np.array([returns[at] for at in met]), scale)
            for at, x in zip(met, found, strict=True):
                of_steps[at] = x
    out = np.zeros(mask.shape)
    for i, t in np.ndindex(*mask.shape):
        if mask[i, t] and 0 <= steps[i, t] < shape[1]:
            out[i, t] = episode[i] + weight * of_steps[i, steps[i, t]]
    return out


def random_arrays(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return (
        rng.choice([0.0, 1.0], 8).astype(np.float32),
        rng.choice([0.0, 0.5, 1.0], (8, 5)).astype(np.float32),
        rng.integers(-1, STATES + 1, (8, 5)).astype(np.int32),
        np.sort(rng.integers(0, 5, (8, 9)), axis=1).astype(np.int32),
        rng.integers(-1, GROUPS, 8).astype(np.int32),
        rng.random((8, 9)) < 0.8,
    )


def test_by_hand() -> None:
    rewards, step_rewards = np.array([1.0, 0.0]), np.array([[0.0, 1.0], [0.0, 0.0]])
    states, groups = np.array([[0, 1], [0, 2]]), np.array([0, 0])
    steps, mask = np.array([[0, 0, 1], [0, 1, 1]]), np.array([[1, 0, 1], [1, 1, 1]])
    arrays = (rewards, step_rewards, states, steps, groups, mask)
    found = gigpo_advantages(*arrays, num_groups=1, num_states=3, gamma=0.5)
    # In state 0 the returns are 0.5 and 0; the states after it were met once.
    close(found, [[0.5 + 0.25, 0, 0.5], [-0.5 - 0.25, -0.5, -0.5]])
    found = gigpo_advantages(*arrays, num_groups=1, num_states=3, gamma=0.5, weight=2.0)
    close(found[:, 0], [1.0, -1.0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [False, True])
def test_values_are_the_references(seed: int, scale: bool) -> None:
    arrays = random_arrays(seed)
    valid = np.arange(8) != seed
    found = gigpo_advantages(
        *arrays,
        num_groups=GROUPS,
        num_states=STATES,
        gamma=0.9,
        weight=0.7,
        scale=scale,
        valid=valid,
    )
    close(found, reference(arrays, 0.9, 0.7, scale, valid), rtol=3e-6)
    assert np.asarray(found).any()


def test_without_equal_states_it_is_a_group_baseline() -> None:
    rewards, step_rewards, _, steps, groups, mask = random_arrays(0)
    states = np.broadcast_to(np.arange(5), (8, 5)) + 5 * np.arange(8)[:, None]
    arrays = (rewards, step_rewards, states.astype(np.int32), steps, groups, mask)
    for scale, plain in ((False, dr_grpo_advantages), (True, grpo_advantages)):
        found = gigpo_advantages(*arrays, num_groups=GROUPS, num_states=40, scale=scale)
        expected = plain(rewards, groups, num_groups=GROUPS)
        close(found, np.where(mask, np.asarray(expected)[:, None], 0))


def test_a_state_of_another_task_is_another_state() -> None:
    arrays = (
        np.zeros(2),
        np.array([[1.0], [0.0]]),
        np.zeros((2, 1), int),
        np.zeros((2, 1), int),
        np.array([0, 1]),
        np.ones((2, 1)),
    )
    assert (gigpo_advantages(*arrays, num_groups=2, num_states=1) == 0).all()


def test_refusals() -> None:
    arrays = random_arrays(0)
    with pytest.raises(ValueError, match="num_states must be a static integer >= 1"):
        lib.gigpo_advantages(*arrays, num_groups=GROUPS, num_states=0)
    with pytest.raises(ValueError, match="weight must be finite and >= 0, got -1"):
        lib.gigpo_advantages(*arrays, num_groups=3, num_states=4, weight=-1)
    with pytest.raises(ValueError, match="step_ids and mask must have 2 axes and one"):
        lib.gigpo_advantages(
            *arrays[:3], arrays[3][:2], *arrays[4:], num_groups=3, num_states=4
        )
