"""Statistics of an evaluation: pass@k, avg@k, maj@k, PDR and ASP.

An undefined statistic, such as pass@8 of four samples or an accuracy over no samples,
is nan: 0 would read as "all wrong".
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import zero_masked


def pass_at_k(
    num_samples: ArrayLike, num_correct: ArrayLike, k: ArrayLike
) -> jax.Array:
    """Probability that one of k samples is right, estimated from n of which c are.

    pass@k = 1 - C(n-c, k) / C(n, k) = 1 - prod_{i<k} (1 - c / (n - i)), 1 where
    n - c < k. Unbiased; Codex, arXiv 2107.03374, equation 1. The product is summed in
    logarithms, so that small probabilities keep their digits. The plug-in
    1 - (1 - c/n)^k is too low.

    Args:
      num_samples: n, any shape, or a scalar for all.
      num_correct: c, likewise.
      k: samples drawn without replacement, static: an integer >= 1, or integers that
        broadcast with the others.

    Returns:
      float32 in [0, 1], one per problem; nan where k > n or c is not in [0, n]. The
      benchmark's number is their mean.

    Raises:
      ValueError: `k` is traced, not an integer, or < 1, or no problem has that many
        samples.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import pass_at_k
      >>> print(pass_at_k(16, jnp.array([0, 1, 9]), 8))
      [0.  0.5 1. ]
    """
    if isinstance(k, jax.core.Tracer):
        raise ValueError("k must be static, got a traced value")
    # Read on the host, also inside jit: k fixes how many factors the product has.
    host = jax.device_get(k)
    draws = jax.tree.leaves(host.tolist() if hasattr(host, "tolist") else host)
    if not draws or not all(type(x) is int and x >= 1 for x in draws):
        raise ValueError(f"k must be an integer >= 1, got {k!r}")
    most = max(draws)
    n = _checks.constant("num_samples", num_samples)
    c = _checks.constant("num_correct", num_correct)
    known = not isinstance(n, jax.core.Tracer)
    if known and n.size and (jax.device_get(n) < min(draws)).all():
        raise ValueError(
            f"k must be at most the samples of some problem, got {k!r} for "
            f"{int(jax.device_get(n).max())}"
        )
    n, c, tries = jnp.broadcast_arrays(n, c, jnp.asarray(k))
    i = jnp.broadcast_to(jnp.arange(most), (*n.shape, most))
    left = jnp.maximum(n[..., None] - i, 1.0)  # samples left at the i-th draw
    log_miss = jnp.log1p(-jnp.minimum(c[..., None] / left, 1.0))
    log_miss = jnp.where(i < tries[..., None], log_miss, 0.0)
    found = 0.0 - jnp.expm1(jnp.sum(log_miss, axis=-1))  # and not -0
    return jnp.where((tries <= n) & (c >= 0) & (c <= n), found, jnp.nan)


def avg_at_k(correct: ArrayLike, *, valid: ArrayLike | None = None) -> jax.Array:
    """Mean accuracy over the k samples of each problem.

    avg@k = 1/k sum_j correct_j: what "pass@1, averaged over 32 samples" means in the
    reports on AIME (DAPO, arXiv 2503.14476).

    Args:
      correct: [..., k] 0/1, or scores.
      valid: [..., k] bool or 0/1; samples whose grade failed are neither right nor
        wrong and are left out.

    Returns:
      [...] float32; nan for a problem without valid samples.

    Raises:
      ValueError: shapes differ, or `correct` has no axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import avg_at_k
      >>> print(avg_at_k(jnp.array([[1, 0, 1, 1], [0, 0, 1, 0]])))
      [0.75 0.25]
    """
    correct = _checks.constant("correct", correct)
    if correct.ndim == 0:
        raise ValueError("correct must have an axis of samples, got a scalar")
    on = _checks.as_bool(valid, correct)
    _checks.same_shape(correct.ndim, correct=correct, valid=on)
    return jnp.sum(zero_masked(correct, on), axis=-1) / jnp.sum(on, axis=-1)


def majority_answer(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The most frequent answer; in a tie, the one that came first.

    argmax_a #{j : a_j = a}. Self-consistency, arXiv 2203.11171. Runs on the host.
    Samples without an answer do not vote.

    Args:
      answers: the k answers to one problem in the order of sampling, in a normal form
        such as a string; None where none was found.

    Returns:
      The answer, or None where no sample has one.

    Raises:
      ValueError: `answers` is one string.

    Example:
      >>> from jaxrl_reason.losses import majority_answer
      >>> majority_answer(["7", None, "12", None, "12", "7", None])
      '7'
    """
    if isinstance(answers, str):
        raise ValueError(f"answers must be a sequence of answers, got {answers!r}")
    votes = Counter(a for a in answers if a is not None)
    # A Counter keeps the order of first appearance, and max takes the first of equals.
    return max(votes, key=votes.__getitem__, default=None)


def majority_at_k(
    answers: Sequence[Hashable | None], correct: Sequence[bool | int]
) -> float:
    """Whether the most frequent of k answers is right.

    maj@k = correct_j, j the first sample with the majority's answer. Self-consistency,
    arXiv 2203.11171. Runs on the host. A tie goes to the answer that was sampled first;
    None, no answer, never wins over an answer. verl reports the mean over 1000
    resamples of k from n samples: call this on each.

    Args:
      answers: the k answers to one problem, see `majority_answer`.
      correct: what the grader said of each of the k samples.

    Returns:
      1.0 or 0.0; 0.0 where no sample has an answer. The benchmark's number is the mean
      over problems.

    Raises:
      ValueError: lengths differ, or there is no sample.

    Example:
      >>> from jaxrl_reason.losses import majority_at_k
      >>> majority_at_k(["12", "7", "12", None, None, None], [1, 0, 1, 0, 0, 0])
      1.0
    """
    if len(answers) == 0 or len(answers) != len(correct):
        raise ValueError(
            f"answers and correct must have the same length, at least 1, "
            f"got {len(answers)} and {len(correct)}"
        )
    winner = majority_answer(answers)
    if winner is None:
        return 0.0
    return float(bool(correct[list(answers).index(winner)]))


def pdr(accuracy: ArrayLike, perturbed_accuracy: ArrayLike) -> jax.Array:
    """Performance drop rate: the fraction of the accuracy that perturbations cost.

    PDR = 1 - acc(perturbed) / acc(original). GSM-Plus, arXiv 2402.19255. Computed as
    (a - b) / a, which keeps the digits of a small drop.

    Args:
      accuracy: on the original questions, any shape.
      perturbed_accuracy: on their variants, of the same shape; both as fractions or
        both in percent.

    Returns:
      float32, negative where the variants were easier; nan where `accuracy` is 0.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> from jaxrl_reason.losses import pdr
      >>> round(float(pdr(93.25, 85.58)), 4)
      0.0823
    """
    before = _checks.constant("accuracy", accuracy)
    after = _checks.constant("perturbed_accuracy", perturbed_accuracy)
    _checks.same_shape(before.ndim, accuracy=before, perturbed_accuracy=after)
    drop = (before - after) / jnp.where(before == 0, 1.0, before)
    return jnp.where(before == 0, jnp.nan, drop)


def asp(
    seed_correct: ArrayLike,
    variant_correct: ArrayLike,
    *,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Accurately solved pairs: the question and its variant both right.

    ASP = 1/(N D) sum_{i,d} I[seed_i right] I[variant_id right]. GSM-Plus,
    arXiv 2402.19255.

    Args:
      seed_correct: [N] 0/1, the original questions.
      variant_correct: [N, D] 0/1, the D variants of each.
      valid: [N, D] bool or 0/1; pairs with a failed grade are left out. All are valid
        if left out.

    Returns:
      A float32 scalar; nan without pairs.

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import asp
      >>> float(asp(jnp.array([1, 0]), jnp.array([[1, 0], [1, 1]])))
      0.25
    """
    seeds = _checks.constant("seed_correct", seed_correct)
    variants = _checks.constant("variant_correct", variant_correct)
    on = _checks.as_bool(valid, variants)
    _checks.same_shape(2, variant_correct=variants, valid=on)
    if seeds.shape != variants.shape[:1]:
        raise ValueError(
            f"seed_correct must have shape {list(variants.shape[:1])}, one per row of "
            f"variant_correct, got {list(seeds.shape)}"
        )
    return jnp.sum(zero_masked(seeds[:, None] * variants, on)) / jnp.sum(on)
