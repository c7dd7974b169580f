"""Kimi K2.5: a band on the log-ratio, and a pull back to the policy that sampled."""

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


def log_ratio_pull(
    logprobs: ArrayLike, old_logprobs: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """The squared log-ratio, which pulls the policy back to the one that sampled.

    l = (log pi - log pi_old)^2. Kimi K2.5, arXiv 2602.02276, the second term of
    equation 1, whose coefficient is tau; prime-rl's is 1e-3. Unlike a clip it acts on
    every token, in proportion to its log-ratio. Twice `kl_k2` to the old policy.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] of the policy that sampled; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      [B, T] float32 >= 0, zero outside the mask.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import log_ratio_pull
      >>> new, old, mask = jnp.array([[-0.5]]), jnp.array([[-1.0]]), jnp.ones((1, 1))
      >>> pull = lambda x: log_ratio_pull(x, old, mask).sum()
      >>> float(pull(new)), float(jax.grad(pull)(new)[0, 0])
      (0.25, 1.0)
    """
    no_advantages = jnp.zeros(jnp.shape(mask)[:1])
    batch = policy_batch(logprobs, old_logprobs, no_advantages, mask)
    return jnp.square(batch.log_ratio)


def kimi_k2_5_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    log_ratio_low: float | jax.Array,
    log_ratio_high: float | jax.Array,
    pull_coef: float | jax.Array,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Kimi K2.5: no gradient outside a band of log-ratios, and a pull everywhere.

    rho = exp(logprobs - old_logprobs),
    l = -A clip(rho, exp(log_ratio_low), exp(log_ratio_high)) + pull_coef (log rho)^2,
    L = token_mean(w l), plus the optional terms, reduced likewise. arXiv 2602.02276,
    equation 1, which has the opposite sign; it prints Clip(rho, alpha, beta), and its
    text says that the log-ratio lies in [alpha, beta], as here. Outside the band the
    policy gradient is 0 for either sign of the advantage. alpha, beta and tau are not
    published. Advantages: `dr_grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      log_ratio_low: lower end of the band, finite and <= 0.
      log_ratio_high: upper end of the band, finite and >= 0.
      pull_coef: coefficient of the squared log-ratio, >= 0, on every token.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`; the clip fractions are those of the
      band, for either sign of the advantage. And `pull`, the squared log-ratio.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, kimi_k2_5_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> arrays = (logprobs, old, jnp.array([3.0, -1.5]), mask, batch_counts(mask))
      >>> settings = {"log_ratio_low": -0.5, "log_ratio_high": 0.5, "pull_coef": 1e-3}
      >>> loss, metrics = kimi_k2_5_loss(*arrays, **settings)
      >>> float(loss)
      -1.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _checks.number("log_ratio_low", log_ratio_low, at_most=0)
    _checks.number("log_ratio_high", log_ratio_high, at_least=0)
    _checks.number("pull_coef", pull_coef, at_least=0)

    x = batch.log_ratio  # [B, T]
    below, above = x < log_ratio_low, x > log_ratio_high  # [B, T] each
    # By comparison: the gradient is not halved where log-ratio and bound are equal.
    inside = jnp.where(below, log_ratio_low, jnp.where(above, log_ratio_high, x))
    pull = jnp.square(x)  # [B, T]
    objective = -batch.advantages * bounded_exp(inside) + pull_coef * pull
    metrics = {
        **ratio_metrics(batch),
        "clip_frac_low": metric_total(below, batch.mask),
        "clip_frac_high": metric_total(above, batch.mask),
        "pull": metric_total(pull, batch.mask),
    }
    objective = zero_masked(objective, batch.mask)
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)
