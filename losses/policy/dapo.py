"""DAPO's loss.

The method's other parts are `grpo_advantages`, `group_signal` (dynamic sampling),
`soft_overlong_penalty` and `overlong_mask`.
"""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import Metrics, bounded_exp, token_mean
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    policy_metrics,
    total_loss,
)
from jaxrl_reason.losses.reductions import Counts


def dapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.28,
    dual_clip: float | jax.Array | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """DAPO: clip-higher, averaged over all tokens of the mini-batch.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)),
    L = sum_it m_it w_it l_it / sum_it m_it, and the optional terms reduced alike.
    arXiv 2503.14476, equations 8, 10 and 12: clip 0.2 below and 0.28 above.
    Advantages: `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound > 1 of the ratio where A < 0; None for none.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, dapo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = dapo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -1.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high, dual_clip)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    metrics = policy_metrics(batch, clip_low, clip_high, dual_clip)
    return total_loss(token_mean, objective, metrics, batch.mask, terms)
