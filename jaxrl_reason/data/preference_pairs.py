"""Pairs for iterative DPO: from graded groups to (chosen, rejected), on the host.

One round of iterative DPO (IRPO, arXiv 2404.19733): sample
N responses per prompt with the policy of the previous round, grade them, build up to K
pairs of a correct and a wrong one, and train with the previous round's policy as the
reference. The paper has N = 30, K = 10 and four rounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxrl_reason.data.rejection_sampling import prompt_generators


@dataclass(frozen=True)
class PreferencePairs:
    """N pairs as positions in grouped rollouts [P, G].

    Attributes:
      prompt: [N] position of the prompt, ascending.
      chosen: [N] position of the correct response in its group.
      rejected: [N] position of the wrong one.
    """

    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray

    def __len__(self) -> int:
        return len(self.prompt)


def build_pairs(
    correct: np.ndarray,
    truncated: np.ndarray,
    lengths: np.ndarray,
    *,
    max_pairs: int,
    seed: int,
    failed: np.ndarray | None = None,
    problem_ids: Sequence[int] | np.ndarray | None = None,
    max_length_ratio: float | None = None,
) -> PreferencePairs:
    """Up to `max_pairs` (correct, wrong) pairs of each prompt that has both.

    Truncated responses are left out on both sides: most of them are wrong, and a
    preference against them is one against length. Empty responses and those whose
    grader failed are left out too. Within a prompt every response is used about equally
    often; the pairs depend only on the seed and the problem.

    Args:
      correct: [P, G] bool, the accuracy.
      truncated: [P, G] bool, stopped by the length limit.
      lengths: [P, G] response tokens.
      max_pairs: K >= 1, the largest number per prompt.
      seed: >= 0; different for each round.
      failed: [P, G] bool, the grader failed; none if left out.
      problem_ids: [P] integers >= 0; the prompts' positions if left out.
      max_length_ratio: pairs whose responses' lengths have a larger ratio are left out;
        >= 1, None for no bound.

    Returns:
      The pairs, grouped by prompt; none for prompts that are all correct or all wrong.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> correct, long = np.array([[1, 0, 0, 1]]), np.array([[0, 0, 1, 0]])
      >>> pairs = build_pairs(correct, long, np.full((1, 4), 9), max_pairs=8, seed=0)
      >>> sorted(zip(pairs.chosen.tolist(), pairs.rejected.tolist()))
      [(0, 1), (3, 1)]
    """
    if max_pairs < 1:
        raise ValueError(f"max_pairs must be >= 1, got {max_pairs}")
    if max_length_ratio is not None and not max_length_ratio >= 1:
        raise ValueError(f"max_length_ratio must be >= 1, got {max_length_ratio}")
    right, lengths = np.asarray(correct) != 0, np.asarray(lengths)
    stopped = np.asarray(truncated) != 0
    lost = np.zeros_like(right) if failed is None else np.asarray(failed) != 0
    for name, x in (("truncated", stopped), ("lengths", lengths), ("failed", lost)):
        if right.ndim != 2 or x.shape != right.shape:
            raise ValueError(
                f"correct and {name} must have one shape [P, G], "
                f"got {list(right.shape)} and {list(x.shape)}"
            )
    usable = ~stopped & ~lost & (lengths > 0)
    found = []
    for p, rng in enumerate(prompt_generators(seed, problem_ids, len(right))):
        good, bad = (np.flatnonzero(usable[p] & x) for x in (right[p], ~right[p]))
        allowed = _allowed(lengths[p, good], lengths[p, bad], max_length_ratio)
        for i, j in _choose(allowed, max_pairs, rng):
            found.append((p, good[i], bad[j]))
    columns = np.array(found, int).reshape(-1, 3).T
    return PreferencePairs(*columns)


def _allowed(good: np.ndarray, bad: np.ndarray, ratio: float | None) -> np.ndarray:
    """[W, L] bool: which combinations may be pairs."""
    if ratio is None:
        return np.ones((len(good), len(bad)), bool)
    longer = np.maximum(good[:, None], bad[None])
    return longer <= ratio * np.minimum(good[:, None], bad[None])


def _choose(
    allowed: np.ndarray, limit: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Random combinations, each time from those used least so far."""
    left = [tuple(at) for at in rng.permutation(np.argwhere(allowed)).tolist()]
    used_good, used_bad = (np.zeros(n, int) for n in allowed.shape)
    chosen: list[tuple[int, int]] = []
    while left and len(chosen) < limit:
        i, j = min(left, key=lambda at: used_good[at[0]] + used_bad[at[1]])
        left.remove((i, j))
        used_good[i] += 1
        used_bad[j] += 1
        chosen.append((i, j))
    return chosen
