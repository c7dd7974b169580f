"""Objectives on the ratio of a whole sequence: GSPO and GMPO.

Rows must be whole sequences. Both give per-token values whose `sequence_mean` is the
published loss with the published gradient. With `token_mean` a response would weigh by
its length, which is neither method.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import bounded_exp, keep, policy_arrays
from jaxrl_reason.losses.surrogates import check_clip


def gspo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 3e-4,
    clip_high: float | jax.Array = 4e-4,
) -> jax.Array:
    """GSPO: the clipped objective on one ratio a sequence.

    s_i = exp((1/n_i) sum_t m_it (logprobs - old_logprobs)_it),
    s_it = sg(s_i) exp(logprobs_it - sg(logprobs_it)),
    l_it = max(-A_it s_it, -A_it clip(s_it, 1 - clip_low, 1 + clip_high)).
    arXiv 2507.18071, equations 13 and 14 (GSPO-token): the value of equation 5, and
    with one advantage a sequence its gradient. The reduction that belongs to it is
    `sequence_mean`: dL / dlogprobs_it = -A_i s_i m_it / (n_i N) where s_i is not
    clipped. `token_mean` would weigh a response by its length.

    Public libraries differ: verl bounds log s_it above at 10 and always takes its own
    mean over sequences; TRL lets the mean over tokens be combined with it. Here
    log s_it is cut to +-20, beyond which the gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained; a row is a whole sequence.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] for credit a token; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the sequence ratio is cut below at 1 - clip_low; >= 0.
      clip_high: the sequence ratio is cut above at 1 + clip_high; >= 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gspo
      >>> logprobs, old = jnp.log(jnp.array([[4.0, 1.0]])), jnp.zeros((1, 2))
      >>> mask, a = jnp.ones((1, 2)), jnp.array([-1.0])
      >>> print(gspo(logprobs, old, a, mask))  # the geometric mean of 4 and 1
      [[2. 2.]]
    """
    check_clip(clip_low, clip_high, None)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    ratio = _sequence_ratio(log_ratio, live)
    low, high = 1.0 - clip_low, 1.0 + clip_high
    below = jnp.where(ratio > high, high, ratio)
    above = jnp.where(ratio < low, low, ratio)
    return keep(-advantages * jnp.where(advantages < 0, above, below), live)


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
    are those of the log-ratio. arXiv 2507.20673. The reduction that belongs to it is
    `sequence_mean`: dL / dlogprobs_it = -A_i exp(...) m_it / (n_i N) on tokens that are
    not clipped, 0 on those that are. `token_mean` would weigh a response by its length.

    Public libraries differ: verl divides by the rows at hand instead of the
    mini-batch's and bounds no ratio. Here the mean of d' is cut to +-20, beyond which
    the gradient is 0.

    Args:
      logprobs: [B, T] of the policy being trained; a row is a whole sequence.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B], or [B, T] with the same number on all tokens of a sequence as in
        the paper; a constant. Numbers that differ weigh each token's own gradient.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      clip_low: the log-ratio is cut below at -clip_low; >= 0.
      clip_high: the log-ratio is cut above at clip_high; >= 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gmpo
      >>> logprobs, old = jnp.array([[1.0, -0.4]]), jnp.zeros((1, 2))
      >>> mask, a = jnp.ones((1, 2)), jnp.array([1.0])
      >>> print(gmpo(logprobs, old, a, mask))  # 1 is cut to 0.4, the mean is 0
      [[-1. -1.]]
    """
    _checks.not_negative("clip_low", clip_low)
    _checks.not_negative("clip_high", clip_high)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    below = jnp.where(log_ratio > clip_high, clip_high, log_ratio)
    above = jnp.where(log_ratio < -clip_low, -clip_low, log_ratio)
    clipped = keep(jnp.where(advantages < 0, above, below), live)
    return keep(-advantages * _sequence_ratio(clipped, live), live)


def mean_log_ratio(log_ratio: jax.Array, live: jax.Array) -> jax.Array:
    """[B, T] -> [B]: the mean over live tokens, 0 for a row without any."""
    lengths = jnp.maximum(jnp.sum(live, axis=1), 1).astype(jnp.float32)
    return jnp.sum(keep(log_ratio, live), axis=1) / lengths


def _sequence_ratio(log_ratio: jax.Array, live: jax.Array) -> jax.Array:
    """The ratio of each row on each of its tokens, with that token's own slope."""
    mean = jax.lax.stop_gradient(mean_log_ratio(log_ratio, live))
    own = log_ratio - jax.lax.stop_gradient(log_ratio)
    return bounded_exp(mean[:, None] + own)
