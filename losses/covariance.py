"""KL-Cov and Clip-Cov: restrain the few tokens through which entropy falls."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import bounded_exp, keep, policy_arrays
from jaxrl_reason.losses.covariance_tokens import clip_cov_tokens, kl_cov_tokens
from jaxrl_reason.losses.surrogates import clipped_surrogate


def kl_cov(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-3,
    coef: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
) -> jax.Array:
    """KL-Cov: no clip, and a penalty on the tokens of highest covariance.

    rho = exp(logprobs - old_logprobs), l = -A rho, plus
    coef |logprobs - old_logprobs| on the selected tokens. arXiv 2505.22617: fraction
    2e-3 (7B) or 2e-4 (32B), coef 1. The penalty has no gradient at ratio 1, where |.|
    has none in the paper's code and 1 in plain JAX: the first update of a rollout is
    REINFORCE's.

    Public libraries differ: verl chooses inside each micro-batch; its coefficient is
    1.0 in the code, 0.1 in the settings and 1 in the recipe.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the live tokens, in (0, 1]; not used where `selected` is given.
      coef: weight of the penalty, >= 0.
      selected: [B, T] bool or 0/1, this part of what `kl_cov_tokens` gave for the whole
        mini-batch. Left out: chosen among the rows given, which must then be the whole
        mini-batch.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_cov
      >>> logprobs = jnp.array([[-1.0, -3.0]])
      >>> a, mask, chosen = jnp.array([2.0]), jnp.ones((1, 2)), jnp.array([[0, 1]])
      >>> old = logprobs.at[0, 1].add(-1.0)
      >>> tokens = kl_cov(logprobs, old, a, mask, selected=chosen)
      >>> [round(x, 4) for x in tokens[0].tolist()]  # -2 and 1 - 2 e
      [-2.0, -4.4366]
    """
    _checks.not_negative("coef", coef)
    log_ratio, spread_out, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    if selected is None:
        selected = kl_cov_tokens(logprobs, advantages, mask, fraction=fraction)
    chosen = selection(selected, live)
    # |d| with the slope 0 at 0.
    distance = log_ratio * jax.lax.stop_gradient(jnp.sign(log_ratio))
    loss = -spread_out * bounded_exp(log_ratio)
    return keep(loss + coef * keep(distance, chosen), live)


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
    2e-4, band (1, 5). Its scripts put both clips at 1, so that PPO's almost never acts.

    Public libraries differ: verl chooses inside each micro-batch, with a generator that
    has no seed of its own.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the live tokens, in (0, 1]; this and the next three are not used
        where `selected` is given.
      low: lower end of the band of covariance.
      high: upper end, > low.
      key: a JAX key, consumed.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      selected: [B, T] bool or 0/1, this part of what `clip_cov_tokens` gave for the
        whole mini-batch. Left out: drawn among the rows given, which must then be the
        whole mini-batch.

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
    if selected is None:
        if key is None:
            raise ValueError("key must be given without selected, got None")
        selected = clip_cov_tokens(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            fraction=fraction,
            low=low,
            high=high,
            key=key,
            clip_low=clip_low,
            clip_high=clip_high,
        )
    loss = clipped_surrogate(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    return keep(loss, ~selection(selected, _checks.flags(mask)))


def selection(selected: ArrayLike, live: jax.Array) -> jax.Array:
    """The selected live tokens as bool."""
    chosen = _checks.flags(selected)
    _checks.same_shape(2, selected=chosen, mask=live)
    return chosen & live
