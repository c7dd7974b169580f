"""Rewards of a group of rollouts, on the host: f(Rollouts) -> [P, G] float32."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import soft_overlong_penalty
from jaxrl_reason.rl.rollouts import Rollouts

Rewards = Callable[[Rollouts], np.ndarray]


def signed_accuracy(rollouts: Rollouts) -> np.ndarray:
    """+1 for a right answer, -1 for a wrong one (DAPO, arXiv 2503.14476 eq. 7)."""
    return np.where(rollouts.correct, 1.0, -1.0).astype(np.float32)


def binary_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer, 0 for a wrong one."""
    return rollouts.correct.astype(np.float32)


def formatted_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer in the task's format, else 0."""
    return (rollouts.correct & rollouts.format_ok).astype(np.float32)


def with_format_reward(rewards: Rewards, weight: float) -> Rewards:
    """Adds `weight` to the reward of every response that keeps the task's format.

    Rewards with components get one component more.
    """

    def shaped(rollouts: Rollouts) -> np.ndarray:
        given, more = rewards(rollouts), np.float32(weight) * rollouts.format_ok
        if given.ndim == 2:
            return given + more
        return np.concatenate([given, more[..., None]], axis=-1)

    return shaped


def soft_overlong_rewards(max_length: int, cache_length: int) -> Rewards:
    """Accuracy of +-1 plus the soft overlong punishment, lengths in tokens."""

    def rewards(rollouts: Rollouts) -> np.ndarray:
        penalty = soft_overlong_penalty(
            jnp.asarray(rollouts.lengths),
            max_length=max_length,
            cache_length=cache_length,
        )
        return signed_accuracy(rollouts) + np.asarray(penalty)

    return rewards


def accuracy_and_format(rollouts: Rollouts) -> np.ndarray:
    """[P, G, 2]: 1 for a right answer, and 1 for the task's format."""
    both = (rollouts.correct, rollouts.format_ok)
    return np.stack(both, axis=-1).astype(np.float32)


def without_failed(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """[P, G]: where grading failed, the mean of the group's other values (or 0).

    So a response that nobody could judge neither helps nor harms: its own advantage is
    0 and the baseline of its group stays that of the others.
    """
    counted = (~failed).sum(axis=1, keepdims=True)
    total = np.where(failed, 0, values).sum(axis=1, keepdims=True)
    return np.where(failed, total / np.maximum(counted, 1), values).astype(np.float32)
