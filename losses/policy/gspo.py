"""GSPO: the clipped objective on one ratio per sequence.

Rows must be whole sequences. The objective gives per-token values whose `sequence_mean`
is the published loss with the published gradient; `token_mean` would weight a response
by its length, which is not the method.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_sequences,
    row_means,
    zero_masked,
)
from jaxrl_reason.losses._policy import (
    PolicyBatch,
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)


def gspo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 3e-4,
    clip_high: float | jax.Array = 4e-4,
) -> jax.Array:
    """GSPO: the clipped objective on one ratio per sequence.

    s_i = exp((1/n_i) sum_t m_it (logprobs - old_logprobs)_it),
    s_it = sg(s_i) exp(logprobs_it - sg(logprobs_it)),
    l_it = max(-A_it s_it, -A_it clip(s_it, 1 - clip_low, 1 + clip_high)).
    arXiv 2507.18071, equations 13 and 14 (GSPO-token): the value of equation 5, and
    with one advantage per sequence its gradient. Its reduction is `sequence_mean`: dL /
    dlogprobs_it = -A_i s_i m_it / (n_i N) where s_i is not clipped. `token_mean` would
    weight a response by its length.

    Public libraries differ: verl clips log s_it above at 10 and always takes its own
    mean over sequences; TRL also allows the mean over tokens. Here log s_it is clipped
    to +-20, beyond which the gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained; a row is a whole sequence.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] for advantages per token; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the sequence ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the sequence ratio is clipped above at 1 + clip_high; >= 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gspo
      >>> logprobs, old = jnp.log(jnp.array([[4.0, 1.0]])), jnp.zeros((1, 2))
      >>> mask, a = jnp.ones((1, 2)), jnp.array([-1.0])
      >>> print(gspo(logprobs, old, a, mask))  # the geometric mean of 4 and 1
      [[2. 2.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    check_clip(clip_low, clip_high)
    ratio, a = sequence_ratio(batch.log_ratio, batch.mask), batch.advantages
    return zero_masked(-a * clip_ratio(ratio, a, clip_low, clip_high), batch.mask)


def gspo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 3e-4,
    clip_high: float | jax.Array = 4e-4,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """GSPO: the clipped objective on one ratio per sequence, averaged over sequences.

    s_i = exp((1/n_i) sum_t m_it (logprobs - old_logprobs)_it),
    s_it = sg(s_i) exp(logprobs_it - sg(logprobs_it)),
    l = max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)),
    L = sequence_mean(w l), plus the optional terms, reduced likewise. arXiv 2507.18071,
    equations 5 and 13, with the clip ranges of its section 5.1, a rollout split into 4
    mini-batches and no KL. Advantages: `grpo_advantages`. The clip fractions are far
    above those of a per-token clip, as the paper says.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the sequence ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the sequence ratio is clipped above at 1 + clip_high; >= 0.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, but `ratio`, `clip_frac_low` and
      `clip_frac_high` are per sequence: totals over the sequences and their number.

    Raises:
      ValueError: as `ppo_loss`.

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
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high)

    ratio = sequence_ratio(batch.log_ratio, batch.mask)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high)  # [B, T]
    metrics = sequence_metrics(batch, ratio, clip_low, clip_high)
    return total_loss(mean_over_sequences, objective, metrics, batch.mask, terms)


def sequence_ratio(log_ratio: jax.Array, mask: jax.Array) -> jax.Array:
    """The ratio of each row on each of its tokens, with that token's own gradient."""
    mean = jax.lax.stop_gradient(row_means(log_ratio, mask))
    own = log_ratio - jax.lax.stop_gradient(log_ratio)
    return bounded_exp(mean[:, None] + own)


def sequence_metrics(
    batch: PolicyBatch,
    ratio: jax.Array,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
) -> Metrics:
    """`policy_metrics`, with ratio and clip fractions per sequence."""
    a, mask = batch.advantages, batch.mask
    low, high = (ratio < 1 - clip_low) & (a < 0), (ratio > 1 + clip_high) & (a > 0)
    return {
        **ratio_metrics(batch),
        "ratio": _sequence_total(ratio, mask),
        "clip_frac_low": _sequence_total(low.astype(ratio.dtype), mask),
        "clip_frac_high": _sequence_total(high.astype(ratio.dtype), mask),
    }


def _sequence_total(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over sequences of their token means, and the number of sequences."""
    means = row_means(jax.lax.stop_gradient(x), mask)
    return jnp.sum(means), jnp.sum(jnp.any(mask, axis=1), dtype=jnp.float32)
