"""How far the sampler's log-probs are from the trainer's: what to watch every step."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import bounded_exp, k3, keep
from jaxrl_reason.losses.surrogates import Metrics, masked_total


def mismatch_metrics(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> Metrics:
    """Differences between sampler and trainer, as (total, count) pairs.

    With d = sampler_logprobs - old_logprobs and u = exp(-d), means over live tokens of:
    `sampler_diff` |d|; `sampler_k1` d and `sampler_k3` u - 1 + d, which estimate
    KL(sampler || trainer); `sampler_weight` u; `sampler_weight_square` u^2;
    `sampler_chi2` u^2 - 1. And the mean over live sequences of
    `sampler_perplexity_ratio` exp(mean_t d), the trainer's perplexity over the
    sampler's. Estimators: arXiv 2402.03300, equation 4, for k3; verl
    `rollout_corr_helper.py` for the set. u is cut to exp(+-20).

    The effective sample size of a mini-batch is mean(u)^2 / mean(u^2), from the added
    pairs, or `effective_sample_size` at once; maxima are in `mismatch_peaks`.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      Name -> (total, count), float32 scalars without gradient. Add totals and counts
      over micro-batches and devices, then divide once.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.mismatch import mismatch_metrics
      >>> old, sampler = jnp.array([[-1.0, -2.0]]), jnp.array([[-1.5, -1.0]])
      >>> metrics = mismatch_metrics(old, sampler, jnp.ones((1, 2)))
      >>> [float(x) for x in metrics["sampler_diff"] + metrics["sampler_k1"]]
      [1.5, 2.0, 0.5, 2.0]
    """
    d, live = _difference(old_logprobs, sampler_logprobs, mask)
    u = bounded_exp(-d)
    tokens = {
        "sampler_diff": jnp.abs(d),
        "sampler_k1": d,
        "sampler_k3": k3(d),
        "sampler_weight": u,
        "sampler_weight_square": u * u,
        "sampler_chi2": u * u - 1.0,
    }
    metrics = {name: masked_total(x, live) for name, x in tokens.items()}
    rows = jnp.any(live, axis=1)
    mean = jnp.sum(d, axis=1) / jnp.maximum(jnp.sum(live, axis=1), 1)
    total = jnp.sum(keep(bounded_exp(mean), rows))
    count = jnp.sum(rows, dtype=jnp.float32)
    return {**metrics, "sampler_perplexity_ratio": (total, count)}


def mismatch_peaks(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> dict[str, jax.Array]:
    """The largest difference and the largest weight between sampler and trainer.

    `sampler_diff_max` = max_it |sampler - old|, `sampler_weight_max` =
    max_it exp(old - sampler), the exponent cut to +-20, over live tokens. One bad
    token, which no mean shows, is what truncation is for.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      Name -> float32 scalar without gradient; over micro-batches and devices take the
      maximum. 0 for an empty mask. A nan inside the mask shows.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.mismatch import mismatch_peaks
      >>> old, sampler = jnp.array([[-1.0, -2.0]]), jnp.array([[-1.5, -2.0]])
      >>> peaks = mismatch_peaks(old, sampler, jnp.array([[1, 1]]))
      >>> float(peaks["sampler_diff_max"]), round(float(peaks["sampler_weight_max"]), 4)
      (0.5, 1.6487)
    """
    d, live = _difference(old_logprobs, sampler_logprobs, mask)
    return {
        "sampler_diff_max": jnp.max(jnp.abs(d), initial=0.0),
        "sampler_weight_max": jnp.max(keep(bounded_exp(-d), live), initial=0.0),
    }


def effective_sample_size(weights: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Share of the tokens that importance weights leave in effect.

    ESS / n = (mean w)^2 / mean(w^2), n the live tokens: 1 for equal weights, 1 / n when
    one token has all the weight. Kong 1992. verl cuts the weights to [1 / cap, cap]
    first; hand over what you want measured.

    Args:
      weights: [B, T] >= 0, of the whole mini-batch; parts do not add up, see
        `mismatch_metrics` for what does.
      mask: [B, T] bool or 0/1; what the weights are where it is 0 does not matter.

    Returns:
      A float32 scalar without gradient in [0, 1]; 0 if no token has weight.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.mismatch import effective_sample_size
      >>> weights, mask = jnp.array([[3.0, 1.0, 0.0, 0.0]]), jnp.ones((1, 4))
      >>> round(float(effective_sample_size(weights, mask)), 4)
      0.4
    """
    weights, live = _checks.constant("weights", weights), _checks.flags(mask)
    _checks.same_shape(2, weights=weights, mask=live)
    weights = keep(weights, live)
    # Divided by the largest first: squares of 1e25 would overflow.
    peak = jnp.max(weights, initial=0.0)
    weights = weights / jnp.where(peak == 0, 1.0, peak)
    squares = jnp.sum(weights * weights) * jnp.sum(live)
    return jnp.square(jnp.sum(weights)) / jnp.where(squares == 0, 1.0, squares)


def _difference(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """log mu - log pi_old [B, T], 0 outside the mask, and the mask as bool."""
    old = _checks.floating("old_logprobs", old_logprobs)
    sampler = _checks.floating("sampler_logprobs", sampler_logprobs)
    live = _checks.flags(mask)
    _checks.same_shape(2, old_logprobs=old, sampler_logprobs=sampler, mask=live)
    return jax.lax.stop_gradient(keep(sampler - old, live)), live
