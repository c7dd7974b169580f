"""Packed sequences and what the losses need of them, as they lie on the device."""

from collections.abc import Mapping

from chex import Array
from flax import struct


@struct.dataclass
class TrainBatch:
    """Packed sequences and what the losses need of them.

    M rows of width S hold up to C sequences each; Q = M * C slots, some empty. A
    leading axis of micro-batches may stand before every shape.

    What an objective reads of each sequence stands in `inputs` by name: [M, C, T] per
    token or [M, C] per sequence, `old_logprobs` and `advantages` for example.
    """

    tokens: Array  # [M, S] prompt and response, sequence after sequence
    positions: Array  # [M, S] rotary positions, 0 at each prompt's start
    segment_ids: Array  # [M, S] 0 is padding
    starts: Array  # [M, C] column whose state predicts a slot's first response token
    mask: Array  # [M, C, T] True on response tokens that count in the loss
    group_ids: Array  # [M, C] group in the mini-batch, 0 .. num_groups - 1
    branch_ids: Array | None = None  # [M, S] 0 is what a segment's branches share
    inputs: Mapping[str, Array] = struct.field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """An input by its name.

        Raises:
          ValueError: the batch was made without it.
        """
        if name not in self.inputs:
            raise ValueError(
                f"the batch must hold what an objective reads, {name!r}, "
                f"got {sorted(self.inputs)}"
            )
        return self.inputs[name]

    def with_inputs(self, **inputs: Array) -> "TrainBatch":
        """The batch with more inputs, or with others in their place."""
        return self.replace(inputs={**self.inputs, **inputs})  # type: ignore[attr-defined]
