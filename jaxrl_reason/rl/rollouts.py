"""Rollouts (groups of graded responses on the host), and rewards computed from them.

For training the sequences are packed into rows of a fixed width (see `packing`), so
that little computation is spent on padding; for the losses they are unpacked again, one
row of scalars per sequence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_reason.losses import soft_overlong_penalty

_EXTRAS = "extras/"  # prefix of extras in a checkpoint


@struct.dataclass
class Rollouts:
    """Groups of sampled responses with their grades; NumPy arrays on the host.

    P prompts, G samples per prompt, Tp prompt width, T response width.

    Attributes:
      problem_ids: [P] int.
      prompt_tokens: [P, Tp] int, padded on the right.
      prompt_lengths: [P] int.
      tokens: [P, G, T] int, the EOS token included.
      sampler_logprobs: [P, G, T] float.
      lengths: [P, G] int, response tokens.
      truncated: [P, G] bool, stopped by the limit.
      correct: [P, G] bool, the accuracy, before any shaping.
      format_ok: [P, G] bool.
      failed: [P, G] bool, the grader failed; says nothing about the answer.
      unchecked: [P, G] bool, not correct because checking ran into a bound.
      rewards: [P, G] float, shaped.
      policy_step: [P] int, the step whose policy sampled the group.
      extras: [P, G, ...] arrays that only some methods have, by name:
        `reward_parts` of a task that gives rewards, `reward_components`, whose sum is
        `rewards`, or what a component of the method adds. Estimators can read them.
    """

    problem_ids: np.ndarray
    prompt_tokens: np.ndarray
    prompt_lengths: np.ndarray
    tokens: np.ndarray
    sampler_logprobs: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    correct: np.ndarray
    format_ok: np.ndarray
    failed: np.ndarray
    unchecked: np.ndarray
    rewards: np.ndarray
    policy_step: np.ndarray
    extras: Mapping[str, np.ndarray] = struct.field(default_factory=dict)

    def select(self, index: np.ndarray | slice) -> Self:
        """The groups at `index`, in that order."""
        return jax.tree.map(lambda x: x[index], self)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, as checkpoints store it."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        extras = arrays.pop("extras")
        return arrays | {f"{_EXTRAS}{name}": x for name, x in extras.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `arrays`."""
        fields: dict[str, Any] = {"extras": {}}
        for name, x in arrays.items():
            own = fields["extras"] if name.startswith(_EXTRAS) else fields
            own[name.removeprefix(_EXTRAS)] = x
        # Checkpoints of earlier versions do not have it.
        fields.setdefault("unchecked", np.zeros_like(fields["failed"]))
        return cls(**fields)


def concatenate(parts: Sequence[Rollouts]) -> Rollouts:
    """The groups of several rollouts in sequence, oldest first."""
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


Rewards = Callable[[Rollouts], np.ndarray]


def signed_accuracy(rollouts: Rollouts) -> np.ndarray:
    """+1 for a right answer, -1 for a wrong one (DAPO, arXiv 2503.14476 eq. 7)."""
    return np.where(rollouts.correct, 1.0, -1.0).astype(np.float32)


def binary_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer, 0 for a wrong one."""
    return rollouts.correct.astype(np.float32)


def formatted_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer in the task's format, otherwise 0."""
    return (rollouts.correct & rollouts.format_ok).astype(np.float32)


def with_format_reward(rewards: Rewards, weight: float) -> Rewards:
    """Adds `weight` to the reward of every response in the task's format.

    Rewards with components get one more component.
    """

    def shaped(rollouts: Rollouts) -> np.ndarray:
        given, more = rewards(rollouts), np.float32(weight) * rollouts.format_ok
        if given.ndim == 2:
            return given + more
        return np.concatenate([given, more[..., None]], axis=-1)

    return shaped


def check_overlong_cache(cache_length: int, max_length: int) -> None:
    """Raises for an overlong cache that leaves no length without penalty.

    The penalty begins at L_max - L_cache (DAPO, arXiv 2503.14476 eq. 13). A cache as
    large as the limit penalises even the first token: a run then learns empty
    responses.

    Args:
      cache_length: L_cache, tokens before the limit.
      max_length: L_max, the length limit in tokens.

    Raises:
      ValueError: not 0 < cache_length < max_length.
    """
    if not 0 < cache_length < max_length:
        raise ValueError(
            f"overlong_cache must be > 0 and below the length limit ({max_length} "
            f"tokens), got {cache_length}"
        )


@dataclass(frozen=True)
class SoftOverlongRewards:
    """Accuracy of +-1 plus the soft overlong penalty, lengths in tokens.

    DAPO's reward (arXiv 2503.14476 eq. 7 and 13).

    Attributes:
      max_length: L_max, the length limit.
      cache_length: L_cache, the tokens before it over which the reward falls by 1.

    Raises:
      ValueError: as `check_overlong_cache`.
    """

    max_length: int
    cache_length: int

    def __post_init__(self) -> None:
        check_overlong_cache(self.cache_length, self.max_length)

    def __call__(self, rollouts: Rollouts) -> np.ndarray:
        """[P, G] the rewards, for `Method.rewards`.

        Args:
          rollouts: graded groups.
        """
        penalty = soft_overlong_penalty(
            jnp.asarray(rollouts.lengths),
            max_length=self.max_length,
            cache_length=self.cache_length,
        )
        accuracy = np.where(rollouts.correct, np.float32(1), np.float32(-1))
        return accuracy + np.asarray(penalty)


def accuracy_and_format(rollouts: Rollouts) -> np.ndarray:
    """[P, G, 2]: 1 for a right answer, and 1 for the task's format."""
    both = (rollouts.correct, rollouts.format_ok)
    return np.stack(both, axis=-1).astype(np.float32)


def without_failed(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """[P, G]: where grading failed, the mean of the group's other values (or 0).

    So a response that could not be graded has no effect: its own advantage is 0 and its
    group's baseline is that of the others.
    """
    counted = (~failed).sum(axis=1, keepdims=True)
    total = np.where(failed, 0, values).sum(axis=1, keepdims=True)
    return np.where(failed, total / np.maximum(counted, 1), values).astype(np.float32)
