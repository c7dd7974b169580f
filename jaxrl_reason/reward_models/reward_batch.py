"""Good and bad responses to one prompt, packed side by side for a ranking loss.

As in `preference_batch` all responses of a comparison are in one row, so they are in
one micro-batch and on one device; a comparison takes W + L adjacent slots, some of
which may be empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxrl_reason.learner.packing import Packing, TrainBatch
from jaxrl_reason.offline.preference_batch import (
    Pair,
    PreferenceSettings,
    lay_out,
    plan_together,
)


@dataclass(frozen=True)
class Comparison:
    """A prompt with chosen and rejected responses; token ids.

    Attributes:
      prompt: of all of them.
      chosen: the better responses.
      rejected: the worse ones.
    """

    prompt: Sequence[int]
    chosen: Sequence[Sequence[int]]
    rejected: Sequence[Sequence[int]]


def as_comparisons(pairs: Sequence[Pair]) -> list[Comparison]:
    """Pairs as comparisons of one response with another."""
    return [Comparison(p.prompt, [p.chosen], [p.rejected]) for p in pairs]


def pack_comparisons(
    settings: PreferenceSettings,
    comparisons: Sequence[Comparison],
    candidates: tuple[int, int],
) -> tuple[TrainBatch, Packing]:
    """Packs the comparisons of one update.

    Args:
      settings: sizes; its pairs are the comparisons.
      comparisons: N of them.
      candidates: (W, L), slots for chosen and for rejected responses of each.

    Returns:
      The batch, every field with a leading axis of micro-batches, `group_ids` numbering
      the comparisons; and the map from the responses, comparison by comparison and the
      chosen ones first, to slots.

    Raises:
      ValueError: there are too many comparisons, a side is empty or has too many
        responses, something is too long, or a response is on both sides.
    """
    check_comparisons(settings, comparisons, candidates)
    members = [row for c in comparisons for row in _slots(c, candidates)]
    k = sum(candidates)
    starts = np.repeat([len(c.prompt) for c in comparisons], k)
    sizes = np.array([len(response) for response in members])
    lengths = np.where(sizes > 0, starts + sizes, 0)
    plan = plan_together(settings, lengths.reshape(-1, k))
    # Slots without a response are empty.
    there = np.flatnonzero(sizes)
    plan = replace(
        plan,
        micro=plan.micro[there],
        row=plan.row[there],
        slot=plan.slot[there],
        column=plan.column[there],
    )
    sequences = [(comparisons[i // k].prompt, members[i]) for i in there.tolist()]
    return lay_out(settings, plan, sequences, there // k), plan


def _slots(comparison: Comparison, candidates: tuple[int, int]) -> list[Sequence[int]]:
    """The W + L responses, [] for an empty slot."""
    out: list[Sequence[int]] = []
    for side, size in zip(
        (comparison.chosen, comparison.rejected), candidates, strict=True
    ):
        out += [*side, *([[]] * (size - len(side)))]
    return out


def check_comparisons(
    settings: PreferenceSettings,
    comparisons: Sequence[Comparison],
    candidates: tuple[int, int],
) -> None:
    """Raises for a comparison that does not fit or has no signal; names it."""
    if not 1 <= len(comparisons) <= settings.pairs_per_update:
        raise ValueError(
            f"an update must have 1 to pairs_per_update = {settings.pairs_per_update} "
            f"comparisons, got {len(comparisons)}"
        )
    for i, one in enumerate(comparisons):
        sides = {"chosen": one.chosen, "rejected": one.rejected}
        for (name, side), size in zip(sides.items(), candidates, strict=True):
            if not 1 <= len(side) <= size:
                raise ValueError(
                    f"{name} must hold 1 to {size} responses, got {len(side)} in "
                    f"comparison {i}"
                )
        if not 1 <= len(one.prompt) <= settings.max_prompt:
            raise ValueError(
                f"a prompt must have 1 to {settings.max_prompt} tokens, "
                f"got {len(one.prompt)} in comparison {i}"
            )
        for response in (*one.chosen, *one.rejected):
            if not 1 <= len(response) <= settings.max_response:
                raise ValueError(
                    f"a response must have 1 to {settings.max_response} tokens, "
                    f"got {len(response)} in comparison {i}"
                )
        if {tuple(r) for r in one.chosen} & {tuple(r) for r in one.rejected}:
            raise ValueError(
                f"chosen and rejected must differ, got a response on both sides of "
                f"comparison {i}"
            )
