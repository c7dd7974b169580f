"""Pairs of responses packed into rows, both halves of a pair in one row.

A loss on pairs needs both responses in one micro-batch. Adjacent in one row, they are
also on one device, and rows stay full: a pair takes two adjacent slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxrl_reason.learner.packing import Packing, PackingShape, TrainBatch, plan_packing


@dataclass(frozen=True)
class Pair:
    """A prompt with a chosen and a rejected response; token ids, EOS tokens included.

    Attributes:
      prompt: of both responses.
      chosen: the better response.
      rejected: the worse one.
    """

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]


@dataclass(frozen=True)
class PreferenceSettings:
    """Sizes of preference training; lengths in tokens.

    An update uses up to `pairs_per_update` pairs, packed into as many micro-batches as
    they need. A row holds at least one pair: the prompt twice and both responses.

    Attributes:
      pairs_per_update: pairs per optimiser step.
      epochs: passes over the pairs.
      rows_per_micro_batch: packed rows per micro-batch.
      row_width: tokens per row.
      pairs_per_row: the largest number of pairs in a row.
      max_prompt: the longest prompt in tokens.
      max_response: the longest response in tokens.
      seed: for the order of the pairs.
    """

    pairs_per_update: int = 64
    epochs: int = 1
    rows_per_micro_batch: int = 4
    row_width: int = 224
    pairs_per_row: int = 4
    max_prompt: int = 8
    max_response: int = 104
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if name != "seed" and getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        longest = 2 * (self.max_prompt + self.max_response)
        if self.row_width < longest:
            raise ValueError(
                f"row_width must hold both responses of a pair, each with its prompt "
                f"({longest} tokens), got {self.row_width}"
            )

    @property
    def shape(self) -> PackingShape:
        """The shape of a micro-batch; slots 2i and 2i + 1 of a row are a pair."""
        return PackingShape(
            self.rows_per_micro_batch, self.row_width, 2 * self.pairs_per_row
        )

    @property
    def num_micro(self) -> int:
        """The number of micro-batches in the worst case, one pair per row."""
        return -(-self.pairs_per_update // self.rows_per_micro_batch)


def pack_pairs(
    settings: PreferenceSettings, pairs: Sequence[Pair]
) -> tuple[TrainBatch, Packing]:
    """Packs the pairs of one update.

    Args:
      settings: sizes.
      pairs: B pairs.

    Returns:
      The batch, every field with a leading axis of micro-batches, `group_ids` numbering
      the pairs; and the map from 2B sequences (chosen, rejected, chosen, ...) to slots.

    Raises:
      ValueError: there are too many pairs, a prompt or a response is empty or too long,
        or the two responses of a pair are the same.
    """
    check_pairs(settings, pairs)
    both = [(p.prompt, response) for p in pairs for response in (p.chosen, p.rejected)]
    starts = np.array([len(prompt) for prompt, _ in both], int)
    sizes = np.array([len(response) for _, response in both], int)
    plan = plan_together(settings, (starts + sizes).reshape(-1, 2))
    return lay_out(settings, plan, both, np.arange(len(both)) // 2), plan


def plan_together(settings: PreferenceSettings, lengths: np.ndarray) -> Packing:
    """Places N groups of k sequences, each group in adjacent slots of one row.

    Args:
      settings: sizes; a row holds `pairs_per_row` groups.
      lengths: [N, k] tokens of each sequence.

    Returns:
      The plan for N * k sequences, group by group.
    """
    k = lengths.shape[1]
    shape = replace(settings.shape, slots=k * settings.pairs_per_row)
    whole = replace(shape, slots=settings.pairs_per_row)
    plan = plan_packing(lengths.sum(axis=1), whole, settings.num_micro)
    before = np.cumsum(lengths, axis=1) - lengths
    slot = k * np.repeat(plan.slot, k) + np.arange(lengths.size) % k
    column = np.repeat(plan.column, k) + before.reshape(-1)
    return Packing(
        shape=shape,
        num_micro=plan.num_micro,
        num_active=plan.num_active,
        micro=np.repeat(plan.micro, k),
        row=np.repeat(plan.row, k),
        slot=slot,
        column=column,
        trunk=column,  # nothing is shared
        segment=slot + 1,
    )


def lay_out(
    settings: PreferenceSettings,
    plan: Packing,
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]],
    group_ids: np.ndarray,
) -> TrainBatch:
    """Writes prompts and responses to the positions of the plan; leading axis K."""
    starts = np.array([len(prompt) for prompt, _ in sequences], int)
    sizes = np.array([len(response) for _, response in sequences], int)
    shape = plan.shape
    tokens = np.zeros((plan.num_micro, shape.rows, shape.width), np.int32)
    positions, segments = np.zeros_like(tokens), np.zeros_like(tokens)
    for i, (prompt, response) in enumerate(sequences):
        n = starts[i] + sizes[i]
        where = (plan.micro[i], plan.row[i], slice(plan.column[i], plan.column[i] + n))
        tokens[where] = np.concatenate([prompt, response])
        positions[where] = np.arange(n)
        segments[where] = plan.slot[i] + 1
    return TrainBatch(
        tokens=tokens,
        positions=positions,
        segment_ids=segments,
        starts=plan.place((plan.column + starts - 1).astype(np.int32)),
        mask=plan.place(np.arange(settings.max_response) < sizes[:, None]),
        group_ids=plan.place(group_ids.astype(np.int32)),
    )


def check_pairs(settings: PreferenceSettings, pairs: Sequence[Pair]) -> None:
    """Raises for a pair that does not fit or has no signal; names the pair."""
    if len(pairs) > settings.pairs_per_update:
        raise ValueError(
            f"an update must have at most pairs_per_update = "
            f"{settings.pairs_per_update} pairs, got {len(pairs)}"
        )
    limits = {
        "prompt": settings.max_prompt,
        "chosen": settings.max_response,
        "rejected": settings.max_response,
    }
    for i, pair in enumerate(pairs):
        for name, limit in limits.items():
            if not 1 <= len(getattr(pair, name)) <= limit:
                # If it were truncated, its end would silently never be trained on.
                raise ValueError(
                    f"{name} must have 1 to {limit} tokens, "
                    f"got {len(getattr(pair, name))} in pair {i}"
                )
        if np.array_equal(pair.chosen, pair.rejected):
            raise ValueError(
                f"chosen and rejected must differ, got the same response in pair {i}"
            )
