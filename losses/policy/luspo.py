"""LUSPO: GSPO's objective times the length of the response."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_of_sequence_sums,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    total_loss,
)
from jaxrl_reason.losses.policy.gspo import sequence_metrics, sequence_ratio


def luspo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 2e-3,
    clip_high: float | jax.Array = 2.5e-3,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """LUSPO: GSPO with each response's loss multiplied by its length.

    s_i = exp((1/n_i) sum_t m_it (logprobs - old_logprobs)_it),
    l_i = max(-A_i s_i, -A_i clip(s_i, 1 - clip_low, 1 + clip_high)) n_i,
    L = 1/N sum_i l_i, N the sequences of the mini-batch. arXiv 2602.05261 (v1),
    equation 7, with the clip ranges of its section 5.1. The factor cancels the 1/n_i of
    s_i's gradient: every token has the same weight, as in its equation 8. Computed as
    `sequence_sum_mean` of `gspo`, which has this value and gradient; the optional terms
    are reduced likewise, so that they too grow with the length. Advantages:
    `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`; rows are whole responses.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the sequence ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the sequence ratio is clipped above at 1 + clip_high; >= 0.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `gspo_loss`.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, luspo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = luspo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)  # (-3 * 2 + 1.5 * 1) / 2
      -2.25
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high)

    ratio = sequence_ratio(batch.log_ratio, batch.mask)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high)  # [B, T]
    metrics = sequence_metrics(batch, ratio, clip_low, clip_high)
    return total_loss(mean_of_sequence_sums, objective, metrics, batch.mask, terms)
