"""Which prompts to train on, by how often they were solved (on the host, NumPy).

Every rule takes counts, right answers and samples per prompt, and returns a mask, True
for prompts to keep. Counts are compared exactly, which rates are not: 0.8 in float32 is
above 0.8. Right means graded as right, not the shaped reward. Compute metrics before
the filter, and log the fraction that it keeps: filters move training to problems at the
limit of the model's ability, and hide it when the model gets worse.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

# Published bands of the pass rate, with both ends included.
PRIME_BAND = (0.2, 0.8)
LIGHT_R1_BAND = (0.25, 0.625)


def mixed_outcomes(num_correct: ArrayLike, num_samples: ArrayLike) -> np.ndarray:
    """Prompts with some right and some wrong answers: 0 < correct < samples.

    Online it is DAPO's filter (arXiv 2503.14476, equation 11), which refills the batch;
    Skywork-OR1 filters the same way without a refill, and offline keeps 1 to 15 of 16
    (arXiv 2505.22312).

    Args:
      num_correct: [P] right answers.
      num_samples: [P], or one number for all.

    Returns:
      [P] bool.

    Raises:
      ValueError: the counts are invalid.

    Example:
      >>> print(mixed_outcomes([0, 1, 15, 16], 16))
      [False  True  True False]
    """
    correct, samples = _counts(num_correct, num_samples)
    return (correct > 0) & (correct < samples)


def accuracy_band(
    num_correct: ArrayLike, num_samples: ArrayLike, *, low: float, high: float
) -> np.ndarray:
    """Prompts whose pass rate is in a band: low <= correct / samples <= high.

    PRIME filters online with [0.2, 0.8] (arXiv 2502.01456); Light-R1 keeps
    [0.25, 0.625] by the rates of its 7B model (arXiv 2503.10460; the file name in its
    script says 0.2); MiMo drops those above 0.9 (arXiv 2505.07608).

    Args:
      num_correct: [P] right answers.
      num_samples: [P], or one number for all; a prompt without samples is dropped.
      low: smallest rate kept, in [0, 1].
      high: largest rate kept, in [low, 1].

    Returns:
      [P] bool.

    Raises:
      ValueError: the counts are invalid, or a bound is out of its range.

    Example:
      >>> low, high = LIGHT_R1_BAND
      >>> print(accuracy_band([0, 1, 2, 3, 4], 4, low=low, high=high))
      [False  True  True False False]
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"a band must be 0 <= low <= high <= 1, got {low}, {high}")
    correct, samples = _counts(num_correct, num_samples)
    rates = correct / np.maximum(samples, 1)
    return (samples > 0) & (rates >= low) & (rates <= high)


def hard_set(
    num_correct: ArrayLike, num_samples: ArrayLike, *, below: int = 4, of: int = 64
) -> np.ndarray:
    """Prompts that are solved fewer than `below` times out of `of`.

    The second stage of Open-Reasoner-Zero: fewer than 4 of 64, including unsolved ones
    (arXiv 2503.24290). Other numbers of samples are compared by their rate, exactly.

    Args:
      num_correct: [P] right answers.
      num_samples: [P], or one number for all; a prompt without samples is dropped.
      below: >= 1.
      of: >= `below`.

    Returns:
      [P] bool.

    Raises:
      ValueError: the counts are invalid, or `below` and `of` are out of their range.

    Example:
      >>> print(hard_set([0, 3, 4, 64], 64))
      [ True  True False False]
    """
    if not 1 <= below <= of:
        raise ValueError(f"a fraction must have 1 <= below <= of, got {below}, {of}")
    correct, samples = _counts(num_correct, num_samples)
    return (samples > 0) & (correct * of < below * samples)


def not_solved(num_correct: ArrayLike, num_samples: ArrayLike) -> np.ndarray:
    """Prompts with a wrong answer: all except those that are always solved.

    The rule of SRPO's history resampling (arXiv 2504.14286), see `resample_history`;
    all-wrong prompts stay, since they may be solved later. Before each stage
    Skywork-OR1 drops the prompts that the model always solves.

    Args:
      num_correct: [P] right answers.
      num_samples: [P], or one number for all; a prompt without samples is kept.

    Returns:
      [P] bool.

    Raises:
      ValueError: the counts are invalid.

    Example:
      >>> print(not_solved([0, 1, 4], 4))
      [ True  True False]
    """
    correct, samples = _counts(num_correct, num_samples)
    return (correct < samples) | (samples == 0)


def resample_history(
    problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
) -> np.ndarray:
    """The problems of the next epoch, from all outcomes of this one.

    SRPO's history resampling (arXiv 2504.14286): at the end of an epoch drop the
    problems that were always right, keep mixed and all-wrong ones. It costs no extra
    samples, unlike dynamic sampling. Several visits of a problem count together.

    Args:
      problem_ids: [N] of the groups sampled in the epoch, in any order.
      num_correct: [N] right answers.
      num_samples: [N], or one number for all.

    Returns:
      [M] int64, the ids to keep, each once, in the order of their first visit. Problems
      that were not visited are not among them: add those that were left out.

    Raises:
      ValueError: shapes differ, or the counts are invalid.

    Example:
      >>> print(resample_history([7, 5, 9, 7], [4, 0, 4, 2], 4))
      [7 5]
    """
    correct, samples = _counts(num_correct, num_samples)
    ids = np.asarray(problem_ids, np.int64)
    if ids.shape != correct.shape:
        raise ValueError(
            f"problem_ids must be one per group, {correct.shape}, got {ids.shape}"
        )
    unique, first, where = np.unique(ids, return_index=True, return_inverse=True)
    where = where.reshape(-1)
    right = np.bincount(where, correct, len(unique))
    total = np.bincount(where, samples, len(unique))
    order = np.argsort(first)
    return unique[order][(right < total)[order]]


@dataclass(frozen=True)
class EasyPool:
    """MiMo's pool of solved problems, sampled now and then (arXiv 2505.07608).

    When dynamic sampling gets slow late in training because many problems are solved,
    each problem of a batch comes from the pool with probability alpha = 0.1, otherwise
    from the training set as usual. This retains what was learnt and keeps training
    stable.

    It is an immutable value: store its three fields in the checkpoint, and a resumed
    run makes the same draws.

    Attributes:
      seed: for the draws, >= 0.
      members: ids of the solved problems, in the order in which they were added.
      draws: number of draws so far.

    Example:
      >>> pool = EasyPool(seed=0).updated([3, 5, 8], [4, 2, 4], 4)
      >>> pool.members
      (3, 8)
      >>> ids, pool = pool.drawn(4, alpha=1.0)
      >>> sorted(ids.tolist())  # two from the pool, two to be drawn as usual
      [-1, -1, 3, 8]
      >>> pool.updated([3], [1], 4).members
      (8,)
    """

    seed: int
    members: tuple[int, ...] = ()
    draws: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0 or self.draws < 0:
            raise ValueError(
                f"seed and draws must be >= 0, got {self.seed}, {self.draws}"
            )
        # JSON gives lists, NumPy its own integers.
        object.__setattr__(self, "members", tuple(int(i) for i in self.members))

    def updated(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> "EasyPool":
        """The pool after a batch: adds problems that were always right, removes others.

        Args:
          problem_ids: [P] of the batch.
          num_correct: [P] right answers.
          num_samples: [P], or one number for all.

        Returns:
          The new pool; a problem without samples is unchanged.

        Raises:
          ValueError: shapes differ, or the counts are invalid.
        """
        correct, samples = _counts(num_correct, num_samples)
        ids = np.asarray(problem_ids, np.int64)
        if ids.shape != correct.shape:
            raise ValueError(
                f"problem_ids must be one per group, {correct.shape}, got {ids.shape}"
            )
        members = dict.fromkeys(self.members)
        for i, c, n in zip(
            ids.tolist(), correct.tolist(), samples.tolist(), strict=True
        ):
            if n and c == n:
                members.setdefault(i)
            elif n:
                members.pop(i, None)
        return replace(self, members=tuple(members))

    def drawn(self, count: int, *, alpha: float = 0.1) -> tuple[np.ndarray, "EasyPool"]:
        """Draws which of a batch's problems come from the pool.

        Args:
          count: number of problems in the batch.
          alpha: probability of the pool for each, in [0, 1].

        Returns:
          [count] int64, a problem's id or -1 for one to draw as usual, and the next
          pool. No id occurs twice; once the pool is used up, the rest are -1. Draw the
          others from problems that are not in this batch.

        Raises:
          ValueError: `count` is negative or `alpha` outside [0, 1].
        """
        if count < 0 or not 0 <= alpha <= 1:
            raise ValueError(
                f"a draw must have count >= 0 and alpha in [0, 1], got {count}, {alpha}"
            )
        rng = np.random.default_rng((self.seed, self.draws))
        places = np.flatnonzero(rng.random(count) < alpha)[: len(self.members)]
        members = np.asarray(self.members, np.int64)
        ids = np.full(count, -1, np.int64)
        ids[places] = rng.permutation(members)[: len(places)]
        return ids, replace(self, draws=self.draws + 1)


def _counts(
    num_correct: ArrayLike, num_samples: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """[P] int64 twice."""
    correct, samples = np.asarray(num_correct), np.asarray(num_samples)
    for name, x in (("num_correct", correct), ("num_samples", samples)):
        if x.size and not np.issubdtype(x.dtype, np.integer):
            raise ValueError(f"{name} must be whole numbers, got {x.dtype}")
    if correct.ndim != 1 or samples.shape not in ((), correct.shape):
        raise ValueError(
            "num_correct must be [P] and num_samples [P] or one number, "
            f"got {correct.shape} and {samples.shape}"
        )
    correct = correct.astype(np.int64)
    samples = np.broadcast_to(samples, correct.shape).astype(np.int64)
    if ((correct < 0) | (correct > samples)).any():
        raise ValueError("counts must be 0 <= num_correct <= num_samples")
    return correct, samples
