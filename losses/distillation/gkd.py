"""Generalised knowledge distillation: full distributions, token by token."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_over_sequences,
    metric_total,
    zero_masked,
)


def gkd_loss(
    divergence: ArrayLike, mask: ArrayLike, counts: Counts
) -> tuple[jax.Array, Metrics]:
    """GKD: the mean over sequences of the mean divergence of their tokens.

    L = 1/N sum_i 1/n_i sum_t m_it D_it, D the divergence of teacher and student at the
    token: `chunked_jsd`, `generalized_jsd` or `top_k_jsd`. GKD, arXiv 2306.13649,
    section 3.1, with the mean over a sequence's tokens of equation 2; the sequences may
    be the student's own, the teacher's or a dataset's, mixed by the paper's lambda. The
    sampling is not differentiated. TRL averages over all tokens instead, which is
    `token_mean`.

    Args:
      divergence: [B, T], differentiable; what it holds where the mask is 0 does not
        matter.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.

    Returns:
      The scalar, and as metric the pair `teacher_divergence`, over tokens.

    Raises:
      ValueError: shapes differ, or counts are not of `batch_counts`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, gkd_loss
      >>> divergence = jnp.array([[1.0, 3.0], [4.0, 9.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> loss, _ = gkd_loss(divergence, mask, batch_counts(mask))
      >>> float(loss)
      3.0
    """
    check_counts(counts)
    divergence, mask = _checks.floating("divergence", divergence), _checks.as_bool(mask)
    _checks.same_shape(2, divergence=divergence, mask=mask)
    divergence = zero_masked(divergence, mask)
    metrics = {"teacher_divergence": metric_total(divergence, mask)}
    return mean_over_sequences(divergence, mask, counts), metrics


def check_counts(counts: Counts) -> None:
    """Raises if the denominators were not counted by `batch_counts`."""
    if not isinstance(counts, Counts):
        raise ValueError(
            f"counts must come from batch_counts, got {type(counts).__name__}"
        )
