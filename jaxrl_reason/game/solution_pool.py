"""Solutions of several provers to the same problems: a verifier's training data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxrl_reason.data.preference_pairs import build_pairs
from jaxrl_reason.offline.sample_rounds import as_pairs
from jaxrl_reason.reward_models.reward_batch import Comparison, as_comparisons
from jaxrl_reason.rl.rollouts import Rollouts

_PER_SAMPLE = (
    "tokens",
    "sampler_logprobs",
    "lengths",
    "truncated",
    "correct",
    "format_ok",
    "failed",
    "rewards",
)


def verifier_comparisons(
    pool: Sequence[Rollouts], *, max_pairs: int, seed: int
) -> list[Comparison]:
    """Right solutions against wrong ones to the same problem, of all provers together.

    Each prover contributes the same number of solutions to a problem, and within a
    problem all right solutions are used about equally often, and so are all wrong ones.
    A truncated response counts as a wrong solution: otherwise the verifier would never
    be trained on responses at the limit, which a sneaky prover could exploit.

    Raises:
      ValueError: the provers have solutions to different problems.
    """
    merged = side_by_side(pool)
    places = build_pairs(
        merged.correct,
        np.zeros_like(merged.truncated),
        merged.lengths,
        max_pairs=max_pairs,
        seed=seed,
        failed=merged.failed,
        problem_ids=merged.problem_ids,
    )
    return as_comparisons(as_pairs(merged, places))


def side_by_side(pool: Sequence[Rollouts]) -> Rollouts:
    """Groups of several provers to the same problems as larger groups."""
    for other in pool[1:]:
        if not np.array_equal(other.problem_ids, pool[0].problem_ids):
            raise ValueError(
                f"all provers must have solved the problems "
                f"{pool[0].problem_ids.tolist()}, got {other.problem_ids.tolist()}"
            )
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(r, name) for r in pool], axis=1)
        for name in _PER_SAMPLE
    }
    return replace(pool[0], **joined)
