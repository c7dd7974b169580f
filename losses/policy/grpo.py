"""GRPO's loss; its advantages, which many methods use, are `grpo_advantages`."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_sequences,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)


def grpo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array | None = None,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """GRPO: clipped surrogate and KL, averaged over tokens, then over sequences.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)),
    L = sequence_mean(w l) + kl_coef sequence_mean(KL) - entropy_coef sequence_mean(H).
    DeepSeekMath, arXiv 2402.03300, equation 3: kl_coef 0.04, k3. DeepSeek-R1,
    arXiv 2501.12948, used 0.001. Advantages: `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound > 1 of the ratio where A < 0; None for none.
      kl_coef: coefficient of the KL term, >= 0. If left out, the paper's 0.04 where
        `ref_logprobs` is given, and no KL term where it is not.
      ref_logprobs, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, grpo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = grpo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -0.75
    """
    if kl_coef is None:
        kl_coef = 0.0 if ref_logprobs is None else 0.04
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high, dual_clip)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    metrics = ratio_metrics(batch, clip_low, clip_high, dual_clip)
    return total_loss(mean_over_sequences, objective, metrics, batch.mask, terms)
