"""Sequences packed into rows of a fixed width, with a prompt's tokens once per row.

Responses to one prompt share its tokens: the row holds the prompt's first n - 1 tokens
once (the trunk), then for each response a branch, which is the prompt's last token and
the response. A branch attends to the trunk and to itself, and its positions continue
those of the trunk, so every token attends to exactly what it attends to in a separate
row. The last prompt token is in every branch because it predicts the first token of
each response: so in every layout the column before a response token predicts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from chex import Array
from flax import struct


@struct.dataclass
class TrainBatch:
    """Packed sequences and the inputs of the losses.

    M rows of width S hold up to C sequences each; the Q = M * C slots, row after row
    and some of them empty, are the B axis of the losses. Every array may have a leading
    axis of micro-batches.

    What an objective reads of each sequence is in `inputs` by name: [Q, T] per token or
    [Q] per sequence, for example `old_logprobs` and `advantages`.

    Attributes:
      tokens: [M, S] prompt and response, sequence after sequence.
      positions: [M, S] rotary positions, 0 at each prompt's start.
      segment_ids: [M, S] 0 is padding.
      starts: [Q] column of the row whose state predicts a slot's first response token.
      mask: [Q, T] True on response tokens that count in the loss.
      group_ids: [Q] group in the mini-batch, 0 .. num_groups - 1.
      branch_ids: [M, S] 0 for what a segment's branches share.
      inputs: what an objective reads of each sequence, by name.
    """

    tokens: Array
    positions: Array
    segment_ids: Array
    starts: Array
    mask: Array
    group_ids: Array
    branch_ids: Array | None = None
    inputs: Mapping[str, Array] = struct.field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """An input by its name.

        Raises:
          ValueError: the batch does not have it.
        """
        if name not in self.inputs:
            raise ValueError(
                f"the batch must hold what an objective reads, {name!r}, "
                f"got {sorted(self.inputs)}"
            )
        return self.inputs[name]

    def with_inputs(self, **inputs: Array) -> "TrainBatch":
        """The batch with inputs added or replaced."""
        return self.replace(inputs={**self.inputs, **inputs})  # type: ignore[attr-defined]


@dataclass(frozen=True)
class PackingShape:
    """One micro-batch's static shape: `rows` of `width` tokens, `slots` per row.

    Attributes:
      rows: rows of a micro-batch.
      width: tokens per row.
      slots: the largest number of sequences in a row.
    """

    rows: int
    width: int
    slots: int

    def __post_init__(self) -> None:
        for name in ("rows", "width", "slots"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Packing:
    """The position of each of B sequences: micro-batch, row, slot and columns.

    For an array x of a batch of micro-batches, `x[plan.micro, plan.slot]` is [B, ...].

    Attributes:
      shape: of a micro-batch.
      num_micro: number of micro-batches allocated; static.
      num_active: number of micro-batches that hold sequences; they come first.
      micro: [B] micro-batch of each sequence.
      row: [B] row in it.
      slot: [B] slot in the micro-batch; each row has `shape.slots`.
      column: [B] first column of the sequence's own tokens in its row.
      trunk: [B] first column of the tokens that it shares with others.
      segment: [B] number of its prompt in the row, from 1.
    """

    shape: PackingShape
    num_micro: int
    num_active: int
    micro: np.ndarray
    row: np.ndarray
    slot: np.ndarray
    column: np.ndarray
    trunk: np.ndarray
    segment: np.ndarray

    def place(self, values: np.ndarray) -> np.ndarray:
        """[B, ...] -> [K, Q, ...], with zeros (False) in empty slots."""
        lead = (self.num_micro, self.shape.rows * self.shape.slots)
        out = np.zeros(lead + values.shape[1:], values.dtype)
        out[self.micro, self.slot] = values
        return out


def plan_packing(
    lengths: np.ndarray,
    shape: PackingShape,
    num_micro: int,
    *,
    shared: np.ndarray | None = None,
    prompt_ids: np.ndarray | None = None,
) -> Packing:
    """Packs sequences into rows, longest first, each into the fullest row that fits.

    Prompts with the most tokens come first, and a row that already holds a sequence's
    shared tokens is preferred.

    Args:
      lengths: [B] tokens of each sequence (prompt and response).
      shape: of one micro-batch.
      num_micro: micro-batches to allocate, so that shapes stay static.
      shared: [B] how many of them a row holds only once for all sequences of a prompt;
        zeros if left out.
      prompt_ids: [B] the prompt of each sequence; nothing is shared if left out.

    Raises:
      ValueError: a sequence is wider than a row, or there are too few rows.
    """
    if lengths.size and lengths.max() > shape.width:
        raise ValueError(
            f"a sequence must fit into a row of {shape.width} tokens, "
            f"got one of {lengths.max()}"
        )
    count = len(lengths)
    shared = np.zeros(count, int) if shared is None else shared
    prompt_ids = np.arange(count) if prompt_ids is None else prompt_ids
    own = lengths - shared  # [B]
    rows = num_micro * shape.rows
    room, used = np.full(rows, shape.width), np.zeros(rows, int)  # [K * M] each
    row, slot, column, trunk, segment = (np.zeros(count, int) for _ in range(5))  # [B]
    held: dict[int, dict[int, tuple[int, int]]] = {}  # prompt -> row -> trunk, segment
    prompts_in = np.zeros(rows, int)
    opened = 0
    for i in packing_order(own, shared, prompt_ids):
        at = held.setdefault(int(prompt_ids[i]), {})
        needed = np.full(opened, lengths[i])
        needed[list(at)] = own[i]
        fits = (room[:opened] >= needed) & (used[:opened] < shape.slots)
        if fits.any():
            cost = needed * (shape.width + 1) + room[:opened]
            r = int(np.argmin(np.where(fits, cost, np.iinfo(cost.dtype).max)))
        else:
            r, opened = opened, opened + 1
            if opened > rows:
                raise ValueError(
                    f"{count} sequences must fit into {rows} rows of "
                    f"{shape.width} tokens and {shape.slots} slots, got more"
                )
        if r not in at:
            prompts_in[r] += 1
            at[r] = (shape.width - room[r], prompts_in[r])
            room[r] -= shared[i]
        trunk[i], segment[i] = at[r]
        row[i], slot[i], column[i] = r, used[r], shape.width - room[r]
        room[r] -= own[i]
        used[r] += 1
    num_active = max(1, -(-opened // shape.rows))
    micro, row = np.divmod(row, shape.rows)
    slot += row * shape.slots
    return Packing(
        shape, num_micro, num_active, micro, row, slot, column, trunk, segment
    )


def packing_order(
    own: np.ndarray, shared: np.ndarray, prompt_ids: np.ndarray
) -> np.ndarray:
    """Prompt by prompt, those with the most tokens first, each with its longest first.

    >>> packing_order(np.array([1, 4, 2, 9]), np.zeros(4, int), np.array([7, 7, 7, 3]))
    array([3, 1, 2, 0])
    """
    _, prompt = np.unique(prompt_ids, return_inverse=True)
    total = np.bincount(prompt, weights=own)
    np.maximum.at(together := np.zeros_like(total), prompt, shared)
    # The last key is the primary one; prompts of equal size stay together.
    return np.lexsort((-own, prompt, -(total + together)[prompt]))


def pack_sequences(
    prompts: Sequence[np.ndarray],
    responses: Sequence[np.ndarray],
    shape: PackingShape,
    *,
    num_micro: int,
    response_width: int,
    group_ids: np.ndarray | None = None,
    loss_rows: np.ndarray | None = None,
    prompt_ids: np.ndarray | None = None,
) -> tuple[TrainBatch, Packing]:
    """Packs B prompts with their responses into a batch of micro-batches.

    Args:
      prompts: B arrays of token ids.
      responses: B arrays of token ids, at most `response_width` each.
      shape: of one micro-batch.
      num_micro: micro-batches to allocate, K.
      response_width: T.
      group_ids: [B] group of each sequence; zeros if left out.
      loss_rows: [B] bool, False leaves a sequence out of the loss; all True by default.
      prompt_ids: [B], equal where prompts are the same: a row then holds their tokens
        once. No tokens are shared if left out.

    Returns:
      The batch, every field with a leading axis K, and the map from sequences to slots.

    Raises:
      ValueError: a prompt is empty, a response or a sequence is too long, prompts of
        one id differ in length, or there are too few rows.
    """
    sizes = np.array([len(r) for r in responses], int)  # [B]
    starts = np.array([len(p) for p in prompts], int)  # [B]
    if starts.min(initial=1) < 1:
        raise ValueError("a prompt must hold at least one token, got an empty one")
    if sizes.max(initial=0) > response_width:
        # If it were truncated, the end of a response would silently never be trained
        # on.
        raise ValueError(
            f"a response must have at most {response_width} tokens, "
            f"got one of {sizes.max()}"
        )
    shared = np.zeros_like(starts)
    if prompt_ids is not None:
        shared = starts - 1
        _, first, which = np.unique(prompt_ids, return_index=True, return_inverse=True)
        wanted = starts[first][which]  # [B] tokens of the first prompt of the same id
        for i in np.flatnonzero(starts != wanted).tolist():
            raise ValueError(
                f"prompts of one id must be the same, got {wanted[i]} and {starts[i]} "
                f"tokens for {prompt_ids[i]}"
            )
    plan = plan_packing(
        starts + sizes, shape, num_micro, shared=shared, prompt_ids=prompt_ids
    )
    tokens = np.zeros((num_micro, shape.rows, shape.width), np.int32)  # [K, M, S]
    positions, segments, branches = (np.zeros_like(tokens) for _ in range(3))
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        n, k = starts[i] + sizes[i], shared[i]
        row = (plan.micro[i], plan.row[i])
        once = (*row, slice(plan.trunk[i], plan.trunk[i] + k))
        own = (*row, slice(plan.column[i], plan.column[i] + n - k))
        tokens[once], positions[once] = prompt[:k], np.arange(k)
        tokens[own] = np.concatenate([prompt[k:], response])
        positions[own] = np.arange(k, n)
        segments[once] = segments[own] = plan.segment[i]
        branches[own] = plan.slot[i] + 1
    mask = np.arange(response_width) < sizes[:, None]  # [B, T]
    if loss_rows is not None:
        mask = mask & loss_rows[:, None]
    if group_ids is None:
        group_ids = np.zeros(len(sizes), np.int32)
    batch = TrainBatch(
        tokens=tokens,
        positions=positions,
        segment_ids=segments,
        starts=plan.place((plan.column + starts - shared - 1).astype(np.int32)),
        mask=plan.place(mask),
        group_ids=plan.place(group_ids.astype(np.int32)),
        branch_ids=None if prompt_ids is None else branches,
    )
    return batch, plan
