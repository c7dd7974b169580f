"""The values that cross borders in training: rollouts, packed sequences, batches.

Rollouts live on the host, one row per prompt. Training sees the same sequences packed
into rows of a fixed width (see `packing`), so that no matrix product is spent on
padding; the losses see them unpacked again, one sequence a row of scalars.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
from flax import struct

_EXTRAS = "extras/"  # before the names of extras in a checkpoint


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
      failed: [P, G] bool, the grader failed (not: the answer is wrong).
      rewards: [P, G] float, shaped.
      policy_step: [P] int, the step whose policy sampled the group.
      extras: [P, G, ...] what only some methods have, by name: `reward_components` that
        add up to `rewards`, or what a component of the method adds. Estimators see it
        too.
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
    rewards: np.ndarray
    policy_step: np.ndarray
    # [P, G, ...] what only some methods have, by name: `reward_components` that add up
    # to `rewards`, or what a component of the method adds. Estimators see it too.
    extras: Mapping[str, np.ndarray] = struct.field(default_factory=dict)

    @property
    def num_prompts(self) -> int:
        """P."""
        return int(self.tokens.shape[0])

    @property
    def group_size(self) -> int:
        """G."""
        return int(self.tokens.shape[1])

    @property
    def width(self) -> int:
        """T."""
        return int(self.tokens.shape[2])

    def select(self, index: np.ndarray | slice) -> Self:
        """The groups at `index`, in that order."""
        return jax.tree.map(lambda x: x[index], self)

    def mask(self) -> np.ndarray:
        """[P, G, T] bool, True on sampled tokens."""
        return np.arange(self.width) < self.lengths[..., None]

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
        return cls(**fields)


def concatenate(parts: Sequence[Rollouts]) -> Rollouts:
    """Groups of several rollouts one after the other, oldest first."""
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
