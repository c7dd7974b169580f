"""GMPO: the geometric mean of the tokens' clipped ratios.

Rows must be whole sequences. The objective gives per-token values whose `sequence_mean`
is the published loss with the published gradient.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_over_sequences,
    zero_masked,
)
from jaxrl_reason.losses._policy import (
    policy_batch,
    ratio_metrics,
    total_loss,
)
from jaxrl_reason.losses.policy.gspo import sequence_ratio


def gmpo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 0.4,
    clip_high: float | jax.Array = 0.4,
) -> jax.Array:
    """GMPO: the geometric mean of the tokens' clipped ratios.

    d = logprobs - old_logprobs; where A > 0: d' = min(d, clip_high), where A < 0:
    d' = max(d, -clip_low), and l_it = -A_it exp((1/n_i) sum_s m_is d'_is). The bounds
    are those of the log-ratio. arXiv 2507.20673. Its reduction is `sequence_mean`: dL /
    dlogprobs_it = -A_i exp(...) m_it / (n_i N) on tokens that are not clipped, 0 on
    those that are. `token_mean` would weight a response by its length.

    Public libraries differ: verl divides by the rows given instead of the mini-batch's
    and bounds no ratio. Here the mean of d' is clipped to +-20, beyond which the
    gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained; a row is a whole sequence.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] with the same number on all tokens of a sequence as in
        the paper; a constant. Values that differ weight each token's own gradient.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the log-ratio is clipped below at -clip_low; >= 0.
      clip_high: the log-ratio is clipped above at clip_high; >= 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gmpo
      >>> logprobs, old = jnp.array([[1.0, -0.4]]), jnp.zeros((1, 2))
      >>> mask, a = jnp.ones((1, 2)), jnp.array([1.0])
      >>> print(gmpo(logprobs, old, a, mask))  # 1 is clipped to 0.4, the mean is 0
      [[-1. -1.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _checks.number("clip_low", clip_low, at_least=0)
    _checks.number("clip_high", clip_high, at_least=0)
    a = batch.advantages
    clipped = _clip_log_ratio(batch.log_ratio, a, clip_low, clip_high)
    return zero_masked(-a * sequence_ratio(clipped, batch.mask), batch.mask)


def gmpo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.4,
    clip_high: float | jax.Array = 0.4,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """GMPO: the geometric mean of the tokens' clipped ratios, averaged over sequences.

    d = logprobs - old_logprobs; where A > 0: d' = min(d, clip_high), where A < 0:
    d' = max(d, -clip_low); l_it = -A_it exp((1/n_i) sum_s m_is d'_is),
    L = sequence_mean(w l), plus the optional terms, reduced likewise. arXiv 2507.20673:
    log-ratios clipped at +-0.4, no KL. Advantages: `grpo_advantages`. A weight per
    sequence multiplies its loss; a weight per token multiplies that token's own
    gradient.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the log-ratio is clipped below at -clip_low; >= 0.
      clip_high: the log-ratio is clipped above at clip_high; >= 0.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, the clip fractions with the bounds of
      the log-ratio.

    Raises:
      ValueError: as `ppo_loss`.

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
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _checks.number("clip_low", clip_low, at_least=0)
    _checks.number("clip_high", clip_high, at_least=0)

    a = batch.advantages  # [B, T]
    clipped = _clip_log_ratio(batch.log_ratio, a, clip_low, clip_high)  # [B, T]
    objective = -a * sequence_ratio(clipped, batch.mask)  # [B, T]
    metrics = ratio_metrics(batch, -jnp.expm1(-clip_low), jnp.expm1(clip_high))
    return total_loss(mean_over_sequences, objective, metrics, batch.mask, terms)


def _clip_log_ratio(
    log_ratio: jax.Array,
    advantages: jax.Array,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
) -> jax.Array:
    """The log-ratio, clipped on the side that the advantage's sign selects."""
    below = jnp.where(log_ratio > clip_high, clip_high, log_ratio)
    above = jnp.where(log_ratio < -clip_low, -clip_low, log_ratio)
    return jnp.where(advantages < 0, above, below)
