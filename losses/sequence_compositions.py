"""Published methods that average over sequences: GSPO and GMPO.

Each is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and gives
`(scalar, metrics)`, as the losses of `compositions`. Rows are whole sequences.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses._assembly import OptionalTerms, assemble, takes_terms
from jaxrl_reason.losses._metrics import sequence_total, unclipped_metrics, with_clips
from jaxrl_reason.losses._numerics import bounded_exp, policy_arrays
from jaxrl_reason.losses.reductions import Counts, sequence_mean
from jaxrl_reason.losses.sequence_ratio import gmpo, gspo, mean_log_ratio
from jaxrl_reason.losses.surrogates import Metrics, policy_metrics


@takes_terms
def gspo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 3e-4,
    clip_high: float | jax.Array = 4e-4,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """GSPO: the clipped objective on one ratio a sequence.

    L = sequence_mean(w gspo), plus the optional terms reduced alike. arXiv 2507.18071,
    equation 5, with the clip ranges of its section 5.1, a rollout cut into 4
    mini-batches and no KL. Advantages: `grpo_advantages`. The clip fractions are far
    above those of a clip a token, as the paper says.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] for credit a token; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: >= 0, see `gspo`.
      clip_high: >= 0.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, of which `ratio`,
      `clip_frac_low` and `clip_frac_high` are of sequences: totals over the live
      sequences and their number; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, gspo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = gspo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -0.75
    """
    objective = gspo(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    metrics = _sequence_metrics(
        logprobs, old_logprobs, advantages, mask, clip_low, clip_high
    )
    return assemble(sequence_mean, objective, metrics, logprobs, mask, counts, **terms)


@takes_terms
def gmpo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.4,
    clip_high: float | jax.Array = 0.4,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """GMPO: the geometric mean of the tokens' clipped ratios.

    L = sequence_mean(w gmpo), plus the optional terms reduced alike. arXiv 2507.20673:
    log-ratios cut at +-0.4, no KL. Advantages: `grpo_advantages`. A weight a sequence
    multiplies its loss; a weight a token multiplies that token's own gradient.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] with one number a sequence; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: of the log-ratio, >= 0, see `gmpo`.
      clip_high: of the log-ratio, >= 0.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions with the bounds of the log-ratio; `kl` where used and `entropy` where
      given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, gmpo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = gmpo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -0.75
    """
    objective = gmpo(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    metrics = policy_metrics(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=-jnp.expm1(-clip_low),
        clip_high=jnp.expm1(clip_high),
    )
    return assemble(sequence_mean, objective, metrics, logprobs, mask, counts, **terms)


def _sequence_metrics(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
) -> Metrics:
    """GSPO's: the ratio and its clips are of sequences, the KL estimates of tokens."""
    log_ratio, a, live = policy_arrays(logprobs, old_logprobs, advantages, mask)
    ratio = bounded_exp(mean_log_ratio(log_ratio, live))[:, None]
    low, high = (
        sequence_total(jnp.where(outside & signed, 1.0, 0.0), live)
        for outside, signed in (
            (ratio < 1.0 - clip_low, a < 0),
            (ratio > 1.0 + clip_high, a > 0),
        )
    )
    metrics = unclipped_metrics(logprobs, old_logprobs, live)
    metrics["ratio"] = sequence_total(jnp.broadcast_to(ratio, live.shape), live)
    return with_clips(metrics, low, high)
