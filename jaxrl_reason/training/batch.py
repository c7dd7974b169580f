"""The values that cross borders in training: rollouts, packed sequences, batches.

Rollouts live on the host, one row a prompt. Training sees the same sequences packed
into rows of a fixed width, several to a row, so that no matrix product is spent on
padding; the losses see them unpacked again, one sequence a row of scalars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    positions: Array  # [M, S] rotary positions, 0 at each sequence's start
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


@dataclass(frozen=True)
class PackingShape:
    """The static shape of one micro-batch: `rows` of `width` tokens, `slots` a row."""

    rows: int
    width: int
    slots: int

    def __post_init__(self) -> None:
        for name in ("rows", "width", "slots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Packing:
    """Where each of B sequences went: micro-batch, row and slot, and its columns."""

    shape: PackingShape
    num_micro: int  # allocated micro-batches (static); the first `live` hold sequences
    live: int
    micro: np.ndarray  # [B]
    row: np.ndarray  # [B]
    slot: np.ndarray  # [B]
    column: np.ndarray  # [B] first column of the sequence

    def place(self, values: np.ndarray) -> np.ndarray:
        """[B, ...] -> [K, M, C, ...], zeros (False) in empty slots."""
        lead = (self.num_micro, self.shape.rows, self.shape.slots)
        out = np.zeros(lead + values.shape[1:], values.dtype)
        out[self.micro, self.row, self.slot] = values
        return out

    def collect(self, placed: jax.Array | np.ndarray) -> np.ndarray:
        """[K, M, C, ...] -> [B, ...]: the inverse of `place`."""
        return np.asarray(placed)[self.micro, self.row, self.slot]


def plan_packing(lengths: np.ndarray, shape: PackingShape, num_micro: int) -> Packing:
    """Packs sequences into rows, longest first, each into the fullest row that fits.

    Args:
      lengths: [B] tokens of each sequence (prompt and response).
      shape: of one micro-batch.
      num_micro: micro-batches to allocate, so that shapes stay static.

    Raises:
      ValueError: a sequence is wider than a row, or the rows do not suffice.
    """
    if lengths.size and lengths.max() > shape.width:
        raise ValueError(
            f"a sequence must fit into a row of {shape.width} tokens, "
            f"got one of {lengths.max()}"
        )
    rows = num_micro * shape.rows
    room = np.full(rows, shape.width)
    used = np.zeros(rows, int)
    row, slot, column = (np.zeros(len(lengths), int) for _ in range(3))
    opened = 0
    for i in np.argsort(-lengths, kind="stable"):
        fits = (room[:opened] >= lengths[i]) & (used[:opened] < shape.slots)
        if fits.any():
            r = int(np.argmin(np.where(fits, room[:opened], shape.width + 1)))
        else:
            r, opened = opened, opened + 1
            if opened > rows:
                raise ValueError(
                    f"{len(lengths)} sequences must fit into {rows} rows of "
                    f"{shape.width} tokens and {shape.slots} slots, got more"
                )
        row[i], slot[i], column[i] = r, used[r], shape.width - room[r]
        room[r] -= lengths[i]
        used[r] += 1
    live = max(1, -(-opened // shape.rows))
    micro, row = np.divmod(row, shape.rows)
    return Packing(shape, num_micro, live, micro, row, slot, column)


def pack_sequences(
    prompts: Sequence[np.ndarray],
    responses: Sequence[np.ndarray],
    shape: PackingShape,
    *,
    num_micro: int,
    response_width: int,
    group_ids: np.ndarray | None = None,
    loss_rows: np.ndarray | None = None,
) -> tuple[TrainBatch, Packing]:
    """Packs B prompts with their responses into a batch of micro-batches.

    Args:
      prompts: B arrays of token ids.
      responses: B arrays of token ids, at most `response_width` each.
      shape: of one micro-batch.
      num_micro: micro-batches to allocate, K.
      response_width: T.
      group_ids: [B] group of each sequence; zeros if left out.
      loss_rows: [B] bool, False takes a sequence out of the loss; all True if left out.

    Returns:
      The batch, every field with a leading axis K, and the map from sequences to slots.

    Raises:
      ValueError: a prompt is empty, a response or a sequence is too long, or the rows
        do not suffice.
    """
    sizes = np.array([len(r) for r in responses])
    starts = np.array([len(p) for p in prompts])
    if starts.size and starts.min() < 1:
        raise ValueError("a prompt must hold at least one token, got an empty one")
    if sizes.size and sizes.max() > response_width:
        # Cut off, the end of a response would silently never be trained on.
        raise ValueError(
            f"a response must have at most {response_width} tokens, "
            f"got one of {sizes.max()}"
        )
    plan = plan_packing(starts + sizes, shape, num_micro)
    tokens = np.zeros((num_micro, shape.rows, shape.width), np.int32)
    positions, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        n = starts[i] + sizes[i]
        where = (plan.micro[i], plan.row[i], slice(plan.column[i], plan.column[i] + n))
        tokens[where] = np.concatenate([prompt, response])
        positions[where] = np.arange(n)
        segments[where] = plan.slot[i] + 1
    mask = np.arange(response_width) < sizes[:, None]
    if loss_rows is not None:
        mask = mask & loss_rows[:, None]
    if group_ids is None:
        group_ids = np.zeros(len(sizes), np.int32)
    batch = TrainBatch(
        tokens=tokens,
        positions=positions,
        segment_ids=segments,
        starts=plan.place((plan.column + starts - 1).astype(np.int32)),
        mask=plan.place(mask),
        group_ids=plan.place(group_ids.astype(np.int32)),
    )
    return batch, plan


def with_fields(batch: TrainBatch, plan: Packing, **values: np.ndarray) -> TrainBatch:
    """Adds per-sequence values [B, ...] to a packed batch, each in its slot."""
    placed = {name: plan.place(np.asarray(v)) for name, v in values.items()}
    return replace(batch, **placed)
