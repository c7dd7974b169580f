"""The values that cross borders in training: rollouts, packed sequences, batches.

Rollouts live on the host, one row a prompt. Training sees the same sequences packed
into rows of a fixed width (see `packing`), so that no matrix product is spent on
padding; the losses see them unpacked again, one sequence a row of scalars.
"""

from collections.abc import Sequence
from typing import Self

import jax
import numpy as np
from chex import Array
from flax import struct


@struct.dataclass
class Rollouts:
    """Groups of sampled responses with their grades; NumPy arrays on the host.

    P prompts, G samples a prompt, Tp prompt width, T response width.
    """

    problem_ids: np.ndarray  # [P] int
    prompt_tokens: np.ndarray  # [P, Tp] int, padded on the right
    prompt_lengths: np.ndarray  # [P] int
    tokens: np.ndarray  # [P, G, T] int, the end token included
    sampler_logprobs: np.ndarray  # [P, G, T] float
    lengths: np.ndarray  # [P, G] int, response tokens
    truncated: np.ndarray  # [P, G] bool, stopped by the limit
    correct: np.ndarray  # [P, G] bool, the accuracy, before any shaping
    format_ok: np.ndarray  # [P, G] bool
    failed: np.ndarray  # [P, G] bool, the grader failed (not: the answer is wrong)
    rewards: np.ndarray  # [P, G] float, shaped
    policy_step: np.ndarray  # [P] int, the step whose policy sampled the group
    components: np.ndarray | None = None  # [P, G, R] rewards that add up to `rewards`
    greedy_rewards: np.ndarray | None = None  # [P] of a greedy response to the prompt

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
        """Field name -> array, as checkpoints store it; those that are there."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: x for name, x in fields.items() if x is not None}


def concatenate(parts: Sequence[Rollouts]) -> Rollouts:
    """Groups of several rollouts one after the other, oldest first."""
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@struct.dataclass
class TrainBatch:
    """Packed sequences and what the losses need of them.

    M rows of width S hold up to C sequences each; Q = M * C slots, some empty. A
    leading axis of micro-batches may stand before every shape. Fields that a method
    does not use are None.
    """

    tokens: Array  # [M, S] prompt and response, sequence after sequence
    positions: Array  # [M, S] rotary positions, 0 at each prompt's start
    segment_ids: Array  # [M, S] 0 is padding
    starts: Array  # [M, C] column whose state predicts a slot's first response token
    mask: Array  # [M, C, T] True on response tokens that count in the loss
    group_ids: Array  # [M, C] group in the mini-batch, 0 .. num_groups - 1
    sampler_logprobs: Array | None = None  # [M, C, T]
    old_logprobs: Array | None = None  # [M, C, T]
    ref_logprobs: Array | None = None  # [M, C, T]
    advantages: Array | None = None  # [M, C, T]
    returns: Array | None = None  # [M, C, T]
    old_values: Array | None = None  # [M, C, T]
    correct: Array | None = None  # [M, C] bool
    weights: Array | None = None  # [M, C, T]
    selected: Array | None = None  # [M, C, T] bool
    branch_ids: Array | None = None  # [M, S] 0 is what a segment's branches share
