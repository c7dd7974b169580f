"""Decoupled PPO: three policies, for samples from an older policy."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_tokens,
    metric_total,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)
from jaxrl_reason.losses.correction import importance_weights, masked_importance_weights


def decoupled_ppo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    sampler_logprobs: ArrayLike,
    weight_cap: float | jax.Array = 5.0,
    truncate: bool = False,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Decoupled PPO: clips around a recent policy and corrects for an older sampler.

    rho = pi / prox, u = sg(prox / mu), l = u max(-A rho, -A clip(rho, 1 - clip_low,
    1 + clip_high)), L = token_mean(w l), plus the optional terms, reduced likewise. mu
    drew the tokens, perhaps several versions ago; prox (`old_logprobs`) is the policy
    at the start of the update. Hilton et al., arXiv 2110.00641, not read; AReaL, arXiv
    2505.24298, equation 5 (read in two summaries of the paper; computed as AReaL's code
    does, May 2026): tokens with u > weight_cap get no gradient and stay in the
    denominator, or u is truncated to it (`truncate`). With `importance_weights` as
    `weights`, `ppo_loss` is the same.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`; the old ones are prox.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      sampler_logprobs: [B, T] of mu, as each token's own sampler reported them.
      weight_cap: largest u, finite and > 0.
      truncate: truncate larger u to the cap; else their tokens are left out.
      clip_low: the ratio to prox is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio to prox is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound > 1 of the ratio to prox where A < 0; None for none.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, relative to prox. And
      `behaviour_weight`, the mean of u, and `behaviour_capped`, the fraction of tokens
      beyond the cap.

    Raises:
      ValueError: as `ppo_loss` and `importance_weights`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, decoupled_ppo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> sampler = old - jnp.log(2.0)  # prox is twice as likely
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> arrays = (logprobs, old, jnp.array([3.0, -1.5]), mask, batch_counts(mask))
      >>> loss, metrics = decoupled_ppo_loss(*arrays, sampler_logprobs=sampler)
      >>> round(float(loss), 4)
      -3.0
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high, dual_clip)
    both = (old_logprobs, sampler_logprobs, batch.mask)
    truncated = importance_weights(*both, cap=weight_cap)  # [B, T]
    kept = masked_importance_weights(*both, low=0.0, high=weight_cap)  # [B, T]
    behaviour = truncated if truncate else kept

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    clipped = clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    objective = -a * clipped * behaviour  # [B, T]
    metrics = {
        **ratio_metrics(batch, clip_low, clip_high, dual_clip),
        "behaviour_weight": metric_total(behaviour, batch.mask),
        "behaviour_capped": metric_total(kept != truncated, batch.mask),
    }
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)
