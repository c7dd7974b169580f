"""Clip-Cov: no gradient for a few of the tokens that lower the entropy most.

As in KL-Cov the tokens are chosen once, with the whole mini-batch (`clip_cov_tokens`),
and the loss of each micro-batch gets its part as `selected`.
"""

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
    number_of_tokens,
    top_tokens,
    whole,
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
from jaxrl_reason.losses.policy.kl_cov import covariance_terms, selected_tokens


def clip_cov_tokens(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-4,
    low: float | jax.Array = 1.0,
    high: float | jax.Array = 5.0,
    key: jax.Array,
    clip_low: float | jax.Array = 1.0,
    clip_high: float | jax.Array = 1.0,
) -> jax.Array:
    """Tokens drawn from a band of covariance, whose gradient Clip-Cov removes.

    Of the N unmasked tokens of the mini-batch, those with low < `token_covariance` <
    high that PPO's clip does not affect are eligible; max(1, floor(fraction N)) of them
    are drawn uniformly without replacement, or all if there are fewer.
    arXiv 2505.22617. A token's random number depends on the key and on its position
    among the unmasked tokens, so that padding does not change the choice. verl chooses
    inside each micro-batch, with no seed of its own.

    Args:
      logprobs: [B, T] of the policy, the whole mini-batch; a constant.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the unmasked tokens, in (0, 1].
      low: lower end of the band.
      high: upper end of the band, > low.
      key: a JAX key, consumed.
      clip_low: as given to `clip_cov`.
      clip_high: as given to `clip_cov`.

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import clip_cov_tokens
      >>> same, a = jnp.array([[-1.0, -5.0, -3.0]]), jnp.array([[1.0, 0.0, 0.5]])
      >>> band = {"low": 0.5, "high": 5.0, "key": jax.random.key(0)}
      >>> mask = jnp.ones((1, 3))
      >>> print(clip_cov_tokens(same, same, a, mask, fraction=1.0, **band))
      [[ True  True False]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    check_clip(clip_low, clip_high)
    return _draw_tokens(batch, fraction, low, high, key, clip_low, clip_high)


def clip_cov(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-4,
    low: float | jax.Array = 1.0,
    high: float | jax.Array = 5.0,
    key: jax.Array | None = None,
    clip_low: float | jax.Array = 1.0,
    clip_high: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
) -> jax.Array:
    """Clip-Cov: the clipped surrogate, without a few tokens of high covariance.

    l = `clipped_surrogate`, and 0 on the selected tokens. arXiv 2505.22617: fraction
    2e-4, band (1, 5). Its scripts set both clips to 1, so that PPO's almost never acts.

    Public libraries differ: verl chooses inside each micro-batch, with no seed of its
    own.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the unmasked tokens, in (0, 1]; this and the next three are not used
        where `selected` is given.
      low: lower end of the band of covariance.
      high: upper end, > low.
      key: a JAX key, consumed.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      selected: [B, T] bool or 0/1, this part of what `clip_cov_tokens` gave for the
        whole mini-batch. If left out, they are drawn from the rows given, which must
        then be the whole mini-batch.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or neither `key` nor
        `selected` is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import clip_cov
      >>> same, mask = jnp.array([[-1.0, -3.0]]), jnp.ones((1, 2))
      >>> chosen = jnp.array([[0, 1]])
      >>> print(clip_cov(same, same, jnp.array([2.0]), mask, selected=chosen))
      [[-2.  0.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    check_clip(clip_low, clip_high)
    if selected is None:
        selected = _draw_tokens(batch, fraction, low, high, key, clip_low, clip_high)
    chosen = selected_tokens(selected, batch.mask)
    ratio, a = bounded_exp(batch.log_ratio), batch.advantages
    loss = -a * clip_ratio(ratio, a, clip_low, clip_high)
    return zero_masked(loss, batch.mask & ~chosen)


def clip_cov_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    fraction: float | jax.Array = 2e-4,
    low: float | jax.Array = 1.0,
    high: float | jax.Array = 5.0,
    key: jax.Array | None = None,
    clip_low: float | jax.Array = 1.0,
    clip_high: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Clip-Cov: no gradient for a few tokens of high covariance; mean over tokens.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), and 0 on the selected
    tokens; L = token_mean(w l), plus the optional terms, reduced likewise. arXiv
    2505.22617: fraction 2e-4, band (1, 5); its scripts set both clips to 1. Advantages:
    `grpo_advantages` with `group_signal` as filter.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      fraction: of the tokens, in (0, 1]; this and the next three are not used where
        `selected` is given.
      low: lower end of the band of covariance.
      high: upper end, > low.
      key: a JAX key, consumed.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      selected: [B, T], this part of what `clip_cov_tokens` gave for the mini-batch;
        if left out, the rows given must be the whole mini-batch and `key` is needed.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, and `selected`, the fraction of the
      tokens selected.

    Raises:
      ValueError: as `ppo_loss`, or neither `key` nor `selected` is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, clip_cov_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> drop = jnp.array([[0, 0], [1, 0]])
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = clip_cov_loss(*arrays, counts, selected=drop)
      >>> float(loss)
      -2.0
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high)
    if selected is None:
        selected = _draw_tokens(batch, fraction, low, high, key, clip_low, clip_high)
    chosen = selected_tokens(selected, batch.mask)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    clipped = -a * clip_ratio(ratio, a, clip_low, clip_high)  # [B, T]
    objective = zero_masked(clipped, ~chosen)  # [B, T]
    metrics = ratio_metrics(batch, clip_low, clip_high)
    metrics["selected"] = metric_total(chosen, batch.mask)
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def _draw_tokens(
    batch: PolicyBatch,
    fraction: float | jax.Array,
    low: float | jax.Array,
    high: float | jax.Array,
    key: jax.Array | None,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
) -> jax.Array:
    """`clip_cov_tokens` on checked arrays."""
    if key is None:
        raise ValueError("key must be given without selected, got None")
    _checks.number("fraction", fraction, above=0, at_most=1)
    _check_band(low, high)
    a, mask = batch.advantages, batch.mask
    covariance = covariance_terms(batch.logprobs, a, mask)
    ratio = bounded_exp(jax.lax.stop_gradient(batch.log_ratio))
    clipped = (a < 0) & (ratio < 1.0 - clip_low) | (a > 0) & (ratio > 1.0 + clip_high)
    eligible = mask & ~clipped & (low < covariance) & (covariance < high)
    place = jnp.cumsum(whole(mask).ravel()) - 1
    draws = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(place)
    number = number_of_tokens(fraction, mask)
    return top_tokens(draws.reshape(mask.shape), eligible, number)


def _check_band(low: float | jax.Array, high: float | jax.Array) -> None:
    """Raises if no token can be in the band of covariance."""
    _checks.number("low", low)
    if not isinstance(low, jax.core.Tracer):
        _checks.number(
            "high", high, above=float(low), finite=False, rule=f"> low, {low}"
        )
