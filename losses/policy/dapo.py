"""DAPO: its loss and its soft overlong penalty.

The method's other parts are `grpo_advantages`, `group_signal` (dynamic sampling) and
`overlong_mask`.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_tokens,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)


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
    L = sum_it m_it w_it l_it / sum_it m_it, plus the optional terms, reduced likewise.
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
    metrics = ratio_metrics(batch, clip_low, clip_high, dual_clip)
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def soft_overlong_penalty(
    lengths: ArrayLike,
    *,
    max_length: float | jax.Array,
    cache_length: float | jax.Array,
) -> jax.Array:
    """A penalty that grows over the last tokens before the limit, floored at -1.

    R(n) = 0 for n <= max_length - cache_length, -1 for n > max_length, and
    (max_length - cache_length - n) / cache_length between. DAPO, arXiv 2503.14476,
    equation 13; added to the correctness reward.

    Args:
      lengths: response lengths in tokens (not characters), any shape.
      max_length: tokens, finite and > 0.
      cache_length: tokens over which the penalty grows, in (0, max_length].

    Returns:
      float32 in [-1, 0], the shape of `lengths`.

    Raises:
      ValueError: a length setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import soft_overlong_penalty
      >>> lengths = jnp.array([16000, 17408, 20480, 30000])
      >>> print(soft_overlong_penalty(lengths, max_length=20480, cache_length=4096))
      [ 0.   -0.25 -1.   -1.  ]
    """
    _checks.number("max_length", max_length, above=0)
    limit = math.inf
    if not isinstance(max_length, jax.core.Tracer):
        limit = float(max_length)
    _checks.number(
        "cache_length",
        cache_length,
        above=0,
        at_most=limit,
        rule=f"in (0, max_length = {limit:g}]",
    )
    room = (max_length - cache_length) - _checks.constant("lengths", lengths)
    return jnp.clip(room / cache_length, -1.0, 0.0)
