"""Per-token objectives that many methods share, to be minimised.

Each returns [B, T], zero outside the mask, differentiable in its first argument alone;
a reduction turns it into a number.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import bounded_exp, zero_masked
from jaxrl_reason.losses._policy import check_clip, clip_ratio, policy_batch


def clipped_surrogate(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
) -> jax.Array:
    """PPO's clipped objective with separate bounds and an optional dual clip.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), and where A < 0 with a
    dual clip c: l = min(l, -A c). PPO, arXiv 1707.06347, equation 7; two bounds
    (clip-higher), DAPO, arXiv 2503.14476, equation 10; dual clip, arXiv 1912.09729.
    The log-ratio is bounded to +-20, beyond which the gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] of the policy at the start of the update; a constant.
      advantages: [B, T], or [B] for one per sequence; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0; from 1 on it never
        acts.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound c > 1 of the ratio where A < 0; None for none.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import clipped_surrogate
      >>> logprobs, old = jnp.log(jnp.array([[1.5, 0.5]])), jnp.zeros((1, 2))
      >>> mask, clip = jnp.ones((1, 2)), {"clip_low": 0.25, "clip_high": 0.25}
      >>> print(clipped_surrogate(logprobs, old, jnp.array([1.0]), mask, **clip))
      [[-1.25 -0.5 ]]
      >>> print(clipped_surrogate(logprobs, old, jnp.array([-1.0]), mask, **clip))
      [[1.5  0.75]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    check_clip(clip_low, clip_high, dual_clip)
    ratio, a = bounded_exp(batch.log_ratio), batch.advantages
    loss = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)
    return zero_masked(loss, batch.mask)


def policy_gradient(
    logprobs: ArrayLike, advantages: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """REINFORCE: the log-probability weighted by the advantage.

    l = -A log pi, so that dl / dlogprobs = -A. Williams 1992. Only the gradient has a
    meaning; the value does not measure progress.

    Args:
      logprobs: [B, T] of the policy being trained.
      advantages: [B, T], or [B] for one per sequence; a constant.
      mask: [B, T] bool or 0/1.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import policy_gradient
      >>> logprobs = jnp.array([[-0.5, -2.0]])
      >>> print(policy_gradient(logprobs, jnp.array([2.0]), jnp.array([[1, 0]])))
      [[1. 0.]]
    """
    logprobs, mask = _checks.floating("logprobs", logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    advantages = _checks.constant("advantages", advantages)
    advantages = _checks.broadcast_to_tokens("advantages", advantages, mask)
    return zero_masked(-advantages * zero_masked(logprobs, mask), mask)


def value_loss(
    values: ArrayLike,
    old_values: ArrayLike | None,
    returns: ArrayLike,
    mask: ArrayLike,
    *,
    clip: float | jax.Array | None = None,
) -> jax.Array:
    """Half the squared error of the values, clipped around the old values on request.

    l = max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) / 2. PPO's public
    implementations (verl `compute_value_loss`, OpenRLHF `ValueLoss`); the paper,
    arXiv 1707.06347, equation 9, has no clip, as here by default. Where the clipped
    term is larger, the gradient is 0.

    Args:
      values: [B, T] of the critic being trained.
      old_values: [B, T] of the critic at the start of the update, a constant; may be
        None without a clip.
      returns: [B, T] value targets, a constant, as `gae` gives them.
      mask: [B, T] bool or 0/1.
      clip: c > 0; None for none.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, `clip` <= 0, or a clip without old values.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import value_loss
      >>> old, new = jnp.array([[0.5, 0.2]]), jnp.array([[1.2, 0.9]])
      >>> ones = jnp.ones((1, 2))
      >>> print(value_loss(new, old, ones, ones, clip=0.5).round(4))
      [[0.02  0.045]]
    """
    values = _checks.floating("values", values)
    targets, mask = _checks.constant("returns", returns), _checks.as_bool(mask)
    _checks.same_shape(2, values=values, returns=targets, mask=mask)
    old = values if old_values is None else _checks.constant("old_values", old_values)
    _checks.same_shape(2, values=values, old_values=old)
    plain = jnp.square(zero_masked(values - targets, mask))
    if clip is None:
        return 0.5 * plain
    if old_values is None:
        raise ValueError("clip must come with old_values, got None")
    _checks.number("clip", clip, above=0)
    moved = jnp.clip(zero_masked(values - old, mask), -clip, clip)
    clipped = jnp.square(zero_masked(old + moved - targets, mask))
    # By comparison: inside the range both are equal, and the gradient is the unclipped
    # one's.
    return 0.5 * jnp.where(clipped > plain, clipped, plain)


def nll(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Negative log-likelihood of each token.

    l = -log pi. With `token_mean`, over the tokens of the responses, it is the loss of
    supervised fine-tuning.

    Args:
      logprobs: [B, T] of the policy being trained.
      mask: [B, T] bool or 0/1, True on the tokens to be learnt.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax.numpy as jnp
          >>> from jaxrl_reason.losses import nll
      >>> print(nll(jnp.array([[-0.5, -2.0]]), jnp.array([[1, 0]])))
      [[0.5 0. ]]
    """
    logprobs, mask = _checks.floating("logprobs", logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    return zero_masked(-logprobs, mask)


def dft(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Dynamic fine-tuning: the likelihood of each token, weighted by its probability.

    l = -sg(pi) log pi, so that dl / dlog pi = -pi. DFT, arXiv 2508.05629:
    as a policy gradient, supervised fine-tuning rewards a token by 1 / pi; the weight
    removes that factor, and tokens that the policy finds unlikely no longer dominate
    the gradient. With `token_mean` it is the loss; TRL's `loss_type="dft"` is the same.

    Args:
      logprobs: [B, T] of the policy being trained. Values above 0 get the weight 1.
      mask: [B, T] bool or 0/1, True on the tokens to be learnt.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import dft
      >>> logprobs, mask = jnp.log(jnp.array([[0.5, 0.25]])), jnp.array([[1, 0]])
      >>> jax.grad(lambda x: dft(x, mask).sum())(logprobs).tolist()
      [[-0.5, 0.0]]
    """
    logprobs, mask = _checks.floating("logprobs", logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    # Where log pi is -inf, pi log pi is 0 like its limit.
    logprobs = jnp.maximum(zero_masked(logprobs, mask), -1e30)
    weight = jax.lax.stop_gradient(jnp.exp(jnp.minimum(logprobs, 0.0)))
    return zero_masked(-weight * logprobs, mask)
