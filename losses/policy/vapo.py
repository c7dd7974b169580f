"""VAPO: clip-higher, the likelihood of correct responses, and lambda by length."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
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


def vapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    correct: ArrayLike,
    positive_counts: Counts,
    positive_coef: float | jax.Array = 0.1,
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
    """VAPO: clip-higher, averaged over tokens, and the likelihood of correct responses.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)),
    L = token_mean(w l) + positive_coef L_NLL, plus the optional terms, reduced
    likewise; L_NLL = -(sum over correct sequences of logprobs) / (their tokens), 0
    without one. arXiv 2504.05118. Advantages: `gae` with `length_adaptive_lambda` for
    the policy and lambda 1 for the critic's targets; `value_loss` for the critic. The
    survey arXiv 2505.00551 prints L_NLL with the opposite sign.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      correct: [B] bool or 0/1, the sequences to imitate.
      positive_counts: `batch_counts(mask & correct[:, None])` of the whole mini-batch:
        the tokens of its correct sequences.
      positive_coef: coefficient of L_NLL, >= 0; for a plain 0 it is not computed.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound > 1 of the ratio where A < 0; None for none.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, and `positive_nll` over the tokens of
      correct sequences, unless its coefficient is 0.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, vapo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask, correct = jnp.array([[1, 1], [1, 0]]), jnp.array([1, 0])
      >>> positive = batch_counts(mask * correct[:, None])
      >>> arrays = (logprobs, old, jnp.array([3.0, -1.5]), mask)
      >>> loss, metrics = vapo_loss(*arrays, batch_counts(mask), correct=correct,
      ...                           positive_counts=positive)
      >>> round(float(loss), 4)  # -1.5 + 0.1 * 0.75
      -1.425
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _checks.number("positive_coef", positive_coef, at_least=0)
    check_clip(clip_low, clip_high, dual_clip)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    metrics = ratio_metrics(batch, clip_low, clip_high, dual_clip)
    loss, metrics = total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)
    if _checks.static_zero(positive_coef):
        return loss, metrics

    if not isinstance(positive_counts, Counts):
        given = type(positive_counts).__name__
        raise ValueError(f"positive_counts must come from batch_counts, got {given}")
    imitated = _checks.constant("correct", correct)
    imitated = _checks.broadcast_to_tokens("correct", imitated, batch.mask) != 0
    nll = -batch.logprobs  # [B, T]
    loss = loss + positive_coef * mean_over_tokens(nll, imitated, positive_counts)
    return loss, {**metrics, "positive_nll": metric_total(nll, imitated)}


def length_adaptive_lambda(
    lengths: ArrayLike, *, alpha: float | jax.Array = 0.05
) -> jax.Array:
    """GAE's lambda of each response, so that its horizon grows with its length.

    lam_i = 1 - 1 / (alpha l_i), clipped to [0, 1]: the weights of the temporal
    differences, 1 / (1 - lam), sum to alpha l. VAPO, arXiv 2504.05118, for the policy's
    advantages; the critic's targets keep lambda 1. Below 1 / alpha = 20 tokens the
    formula is negative, which the paper does not discuss: here they get 0.

    Args:
      lengths: tokens of each response, any shape; [B] for `gae`. Integers or floats; 0
        gives 0.
      alpha: finite and > 0.

    Returns:
      float32 constants in [0, 1], the shape of `lengths`, increasing with the length.

    Raises:
      ValueError: `alpha` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import length_adaptive_lambda
      >>> print(length_adaptive_lambda(jnp.array([10, 40, 200])))
      [0.  0.5 0.9]
    """
    _checks.number("alpha", alpha, above=0)
    horizon = alpha * _checks.constant("lengths", lengths)
    # Clip before the division: for a horizon of at most 1, lambda is 0.
    return jax.lax.stop_gradient(1.0 - 1.0 / jnp.maximum(horizon, 1.0))
