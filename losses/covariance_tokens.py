"""Tokens of high covariance of log-prob and advantage: those of Clip-Cov and KL-Cov.

Entropy falls mainly through a few tokens of high covariance (arXiv 2505.22617). They
are chosen once, with the whole mini-batch, and handed to the loss of each micro-batch
as `selected`; chosen inside a micro-batch they would depend on how the mini-batch was
cut. The log-probs are those of the policy at the start of the update or later ones.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import bounded_exp, keep, policy_arrays, spread
from jaxrl_reason.losses.surrogates import check_clip
from jaxrl_reason.losses.token_selection import number_of_tokens, top_tokens


def token_covariance(
    logprobs: ArrayLike, advantages: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """Each token's part of the covariance of log-prob and advantage.

    cov_t = (A_t - mean(A)) (logprobs_t - mean(logprobs)), means over the live tokens of
    all rows given. arXiv 2505.22617. verl takes the means over a
    micro-batch; give the mini-batch.

    Args:
      logprobs: [B, T] of the policy; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_covariance
      >>> logprobs, advantages = jnp.array([[-1.0, -3.0]]), jnp.array([[2.0, 0.0]])
      >>> print(token_covariance(logprobs, advantages, jnp.ones((1, 2))))
      [[1. 1.]]
    """
    logprobs, live = _checks.floating("logprobs", logprobs), _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=live)
    advantages = spread("advantages", _checks.constant("advantages", advantages), live)
    logprobs = keep(jax.lax.stop_gradient(logprobs), live)
    tokens = jnp.maximum(jnp.sum(live, dtype=jnp.float32), 1.0)
    centred = advantages - jnp.sum(advantages) / tokens
    return keep(centred * (logprobs - jnp.sum(logprobs) / tokens), live)


def kl_cov_tokens(
    logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-3,
) -> jax.Array:
    """The tokens of highest covariance, which KL-Cov penalises.

    The max(1, floor(fraction N)) live tokens of highest `token_covariance`, N the live
    tokens of the mini-batch. arXiv 2505.22617: 2e-3 for 7B, 2e-4 for 32B. Exactly that
    number is chosen; the earlier of equals goes first.

    Args:
      logprobs: [B, T] of the policy, the whole mini-batch; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the live tokens, in (0, 1].

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: shapes differ, or `fraction` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_cov_tokens
      >>> logprobs, a = jnp.array([[-1.0, -3.0, -1.0]]), jnp.array([[2.0, 0.0, 1.0]])
      >>> print(kl_cov_tokens(logprobs, a, jnp.ones((1, 3)), fraction=0.4))
      [[False  True False]]
    """
    covariance = token_covariance(logprobs, advantages, mask)
    live = _checks.flags(mask)
    return top_tokens(covariance, live, number_of_tokens(fraction, live))


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
    """Tokens drawn from a band of covariance, whose gradient Clip-Cov takes away.

    Of the live tokens with low < `token_covariance` < high that PPO's clip leaves
    alone, max(1, floor(fraction N)) are drawn uniformly without replacement, N the live
    tokens of the mini-batch; all of them if there are fewer. arXiv 2505.22617. The
    number that a token draws depends on the key and on its place among the live tokens:
    padding does not change the choice. verl chooses inside each micro-batch, with a
    generator that has no seed of its own.

    Args:
      logprobs: [B, T] of the policy, the whole mini-batch; a constant.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the live tokens, in (0, 1].
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
    check_clip(clip_low, clip_high, None)
    check_band(low, high)
    covariance = token_covariance(logprobs, advantages, mask)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    ratio = bounded_exp(jax.lax.stop_gradient(log_ratio))
    clipped = ((advantages < 0) & (ratio < 1.0 - clip_low)) | (
        (advantages > 0) & (ratio > 1.0 + clip_high)
    )
    eligible = live & ~clipped & (low < covariance) & (covariance < high)
    place = jnp.cumsum(live.ravel()) - 1
    draws = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(place)
    number = number_of_tokens(fraction, live)
    return top_tokens(draws.reshape(live.shape), eligible, number)


def check_band(low: float | jax.Array, high: float | jax.Array) -> None:
    """Refuses a band of covariance that no token can be in."""
    _checks.finite("low", low)
    if not isinstance(low, jax.core.Tracer):
        _checks.setting("high", high, f"> low, {low}", lambda x: x > float(low))
