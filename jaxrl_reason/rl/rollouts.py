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
    """

    problem_ids: np.ndarray  # [P] int
    prompt_tokens: np.ndarray  # [P, Tp] int, padded on the right
    prompt_lengths: np.ndarray  # [P] int
    tokens: np.ndarray  # [P, G, T] int, the EOS token included
    sampler_logprobs: np.ndarray  # [P, G, T] float
    lengths: np.ndarray  # [P, G] int, response tokens
    truncated: np.ndarray  # [P, G] bool, stopped by the limit
    correct: np.ndarray  # [P, G] bool, the accuracy, before any shaping
    format_ok: np.ndarray  # [P, G] bool
    failed: np.ndarray  # [P, G] bool, the grader failed (not: the answer is wrong)
    rewards: np.ndarray  # [P, G] float, shaped
    policy_step: np.ndarray  # [P] int, the step whose policy sampled the group
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
