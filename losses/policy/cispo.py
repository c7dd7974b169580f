"""CISPO: REINFORCE weighted by the clipped ratio."""

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
    zero_masked,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def cispo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    ratio_low: float | jax.Array = 0.0,
    ratio_high: float | jax.Array,
) -> jax.Array:
    """CISPO: REINFORCE weighted by the clipped ratio, which is a constant.

    w = sg(clip(exp(logprobs - old_logprobs), ratio_low, ratio_high)),
    l = -w A logprobs, so that dl / dlogprobs = -w A on every token. MiniMax-M1,
    arXiv 2506.13585, equations 4 and 5. The value does not measure progress. The paper
    has no lower bound and does not publish its upper one.

    Public libraries differ: the bounds here are on the ratio itself, as TRL's
    `epsilon_high` (ScaleRL: 5.0); verl's bounds are 1 - clip_ratio_low and 1 +
    clip_ratio_high.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      ratio_low: lowest weight, in [0, 1]; 0 for none.
      ratio_high: highest weight, >= 1: the ratio, not its distance from 1.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is on the wrong side of 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import cispo
      >>> logprobs, old = jnp.array([[-1.0, -2.0]]), jnp.array([[-3.0, -2.0]])
      >>> mask, a = jnp.ones((1, 2)), jnp.array([1.0])
      >>> print(cispo(logprobs, old, a, mask, ratio_high=5.0))  # weights 5 and 1
      [[5. 2.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _check_ratio_bounds(ratio_low, ratio_high)
    ratio = bounded_exp(batch.log_ratio)
    weight = jax.lax.stop_gradient(jnp.clip(ratio, ratio_low, ratio_high))
    return zero_masked(-weight * batch.advantages * batch.logprobs, batch.mask)


def cispo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    ratio_low: float | jax.Array = 0.0,
    ratio_high: float | jax.Array,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """CISPO: REINFORCE weighted by the clipped ratio, averaged over tokens.

    rho = exp(logprobs - old_logprobs), l = -sg(clip(rho, ratio_low, ratio_high)) A
    logprobs, L = token_mean(w l), plus the optional terms, reduced likewise.
    MiniMax-M1, arXiv 2506.13585, equation 4: no lower bound, no KL; the upper bound is
    not published (ScaleRL, arXiv 2510.13786, uses 5 according to TRL). Every token
    keeps a gradient of bounded size. Advantages: `grpo_advantages`, with DAPO's dynamic
    sampling and length penalty.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      ratio_low: lowest weight, in [0, 1]; 0 for none.
      ratio_high: highest weight, >= 1: the ratio itself, not its distance from 1.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`; the clip fractions are those of the
      weights, for either sign of the advantage.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, cispo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = cispo_loss(*arrays, counts, ratio_high=5.0)
      >>> float(loss)
      0.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _check_ratio_bounds(ratio_low, ratio_high)

    ratio = jax.lax.stop_gradient(bounded_exp(batch.log_ratio))  # [B, T]
    weight = jnp.clip(ratio, ratio_low, ratio_high)  # [B, T]
    objective = -weight * batch.advantages * batch.logprobs  # [B, T]
    metrics = {
        **ratio_metrics(batch),
        "clip_frac_low": metric_total(ratio < ratio_low, batch.mask),
        "clip_frac_high": metric_total(ratio > ratio_high, batch.mask),
    }
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def _check_ratio_bounds(
    ratio_low: float | jax.Array, ratio_high: float | jax.Array
) -> None:
    """Raises if a bound is a distance from 1 instead of a ratio."""
    _checks.number("ratio_low", ratio_low, at_least=0, at_most=1)
    _checks.number("ratio_high", ratio_high, at_least=1)
