"""Dr. GRPO's loss; its advantages are `dr_grpo_advantages`."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_of_sequence_sums,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)


def dr_grpo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    length: float | jax.Array,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Dr. GRPO: clipped surrogate, each sequence's sum divided by one constant.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)),
    L = 1/N sum_i (1/length) sum_t w_it l_it, N the sequences of the mini-batch, plus
    the optional terms, reduced likewise. "Understanding R1-Zero-Like Training", arXiv
    2503.20783. Advantages: `dr_grpo_advantages`; only both together are the method. The
    gradient is smaller than GRPO's by about the mean length over `length`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      length: the constant, tokens > 0: the generation limit (the paper's is 3000).
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
      >>> from jaxrl_reason.losses import batch_counts, dr_grpo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = dr_grpo_loss(*arrays, counts, length=3)
      >>> float(loss)
      -0.75
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _checks.number("length", length, above=0)
    check_clip(clip_low, clip_high, dual_clip)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    metrics = ratio_metrics(batch, clip_low, clip_high, dual_clip)

    def fixed_length_mean(x: jax.Array, mask: jax.Array, counts: Counts) -> jax.Array:
        return mean_of_sequence_sums(x, mask, counts) / length

    return total_loss(fixed_length_mean, objective, metrics, batch.mask, terms)
