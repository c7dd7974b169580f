"""Packed sequences and what the losses need of them, as they lie on the device."""

from chex import Array
from flax import struct


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
