"""DPPO: a trust region on the token's probability instead of its ratio."""

from collections.abc import Callable

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
from jaxrl_reason.losses._policy import (
    PolicyBatch,
    policy_batch,
    ratio_metrics,
    total_loss,
)

Divergence = Callable[[jax.Array, jax.Array], jax.Array]


def binary_tv(logprobs: ArrayLike, old_logprobs: ArrayLike) -> jax.Array:
    """Total variation between "this token" and "any other" under two policies.

    D = |mu - pi|, pi and mu the probabilities of the sampled token. arXiv 2602.04879
    (v3), equation 13. It is a lower bound on the total variation of the full
    distributions.

    Args:
      logprobs: log pi, any shape; a constant.
      old_logprobs: log mu of the policy that sampled, the same shape; a constant.

    Returns:
      float32 constants in [0, 1], the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import binary_tv
      >>> new, old = jnp.log(jnp.array([0.75])), jnp.log(jnp.array([0.5]))
      >>> round(float(binary_tv(new, old)[0]), 4)
      0.25
    """
    new, old = _probabilities(logprobs, old_logprobs)
    # As a product: a difference of two exponentials loses digits where they agree.
    gap = jnp.where(new == old, 0.0, jnp.abs(new - old))
    return -jnp.exp(jnp.maximum(new, old)) * jnp.expm1(-gap)


def binary_kl(logprobs: ArrayLike, old_logprobs: ArrayLike) -> jax.Array:
    """KL divergence between "this token" and "any other" under two policies.

    D = mu log(mu / pi) + (1 - mu) log((1 - mu) / (1 - pi)), pi and mu the probabilities
    of the sampled token. arXiv 2602.04879 (v3), equation 14. It is a lower bound on
    KL(mu || pi) of the full distributions. Public code adds 1e-8 to both parts of the
    second fraction; here it is exact, so that D is infinite at pi = 1.

    Args:
      logprobs: log pi, any shape; a constant.
      old_logprobs: log mu of the policy that sampled, the same shape; a constant.

    Returns:
      float32 constants >= 0, the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import binary_kl
      >>> new, old = jnp.log(jnp.array([0.75])), jnp.log(jnp.array([0.5]))
      >>> round(float(binary_kl(new, old)[0]), 4)  # (log 2/3 + log 2) / 2
      0.1438
    """
    new, old = _probabilities(logprobs, old_logprobs)
    mu, others = jnp.exp(old), -jnp.expm1(old)
    # Where a probability is 0 its term is 0, whatever the logarithm.
    this = jnp.where(mu == 0, 0.0, mu * (old - new))
    log_others = jnp.log(others) - jnp.log(-jnp.expm1(new))
    other = jnp.where(others == 0, 0.0, others * log_others)
    return jnp.maximum(this + other, 0.0)


def dppo_mask(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    divergence: Divergence = binary_tv,
    delta_low: float | jax.Array = 0.2,
    delta_high: float | jax.Array = 0.2,
) -> jax.Array:
    """The tokens that DPPO trains on: those that do not leave the trust region.

    M = 0 where A > 0, rho > 1 and D > delta_high, and where A < 0, rho < 1 and
    D > delta_low; else 1. arXiv 2602.04879 (v3), equation 12, which has one delta;
    verl, SkyRL and prime-rl have one for each sign. A token that moves back towards mu
    is never masked. As `weights` of `cispo_loss` with `ratio_high=20` it gives verl's
    loss.

    Args:
      logprobs, old_logprobs, advantages, mask, divergence, delta_low, delta_high: as in
        `dppo_loss`.

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: as `dppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import dppo_mask
      >>> new, old = jnp.log(jnp.array([[[0.9, 0.01]], [[0.5, 0.001]]]))
      >>> print(dppo_mask(new, old, jnp.array([1.0]), jnp.ones((1, 2))))
      [[False  True]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _check_region(divergence, delta_low, delta_high)
    low, high, _ = _leaving(batch, divergence, delta_low, delta_high)
    return batch.mask & ~(low | high)


def dppo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    divergence: Divergence = binary_tv,
    delta_low: float | jax.Array = 0.2,
    delta_high: float | jax.Array = 0.2,
) -> jax.Array:
    """DPPO: ratio times advantage, for tokens that stay in the trust region.

    rho = exp(logprobs - old_logprobs), l = -M rho A, M of `dppo_mask`. arXiv 2602.04879
    (v3), equation 12. verl's form, -A sg(min(rho, 20)) M logprobs, has a different
    value and, up to a ratio of 20, the same gradient.

    Args:
      logprobs, old_logprobs, advantages, mask, divergence, delta_low, delta_high: as in
        `dppo_loss`.

    Returns:
      [B, T] float32, zero outside the mask and at masked tokens.

    Raises:
      ValueError: as `dppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import dppo
      >>> new, old = jnp.log(jnp.array([[[0.9, 0.01]], [[0.5, 0.001]]]))
      >>> print(dppo(new, old, jnp.array([1.0]), jnp.ones((1, 2))).round(4))
      [[  0. -10.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _check_region(divergence, delta_low, delta_high)
    low, high, _ = _leaving(batch, divergence, delta_low, delta_high)
    tokens = -bounded_exp(batch.log_ratio) * batch.advantages
    return zero_masked(tokens, batch.mask & ~(low | high))


def dppo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    divergence: Divergence = binary_tv,
    delta_low: float | jax.Array = 0.2,
    delta_high: float | jax.Array = 0.2,
    sampler_logprobs: ArrayLike | None = None,
    pull_coef: float | jax.Array = 0.0,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """DPPO: a trust region on the token's probability, averaged over tokens.

    rho = pi / mu, l = -M rho A + pull_coef (log rho)^2, L = token_mean(w l), plus the
    optional terms, reduced likewise. M = 0 where A > 0, rho > 1 and D(mu, pi) >
    delta_high, and where A < 0, rho < 1 and D > delta_low; else 1. arXiv 2602.04879
    (v3), equations 12 to 14: a ratio of 2 is a large change for a likely token and a
    negligible one for a rare token. delta 0.15 to 0.2 with `binary_tv`, 0.05 with
    `binary_kl` (appendices C and E). mu is the policy that sampled, as its own engine
    reported it (section 5.2: a region around recomputed log-probs failed): pass it as
    `sampler_logprobs`. Equation 12 sums over a response's tokens; the mean over all is
    verl's default. prime-rl's default loss is this with `pull_coef=1e-3`, the squared
    log-ratio of Kimi K2.5 (`log_ratio_pull`). Advantages: `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      divergence: f(logprobs, old_logprobs) -> D >= 0 of each token: `binary_tv`,
        `binary_kl` or one of your own.
      delta_low: largest D of a token that is pushed down, >= 0.
      delta_high: largest D of a token that is pushed up, >= 0.
      sampler_logprobs: [B, T] as the sampler reported them, for mu; `old_logprobs`
        where they are left out.
      pull_coef: coefficient of the squared log-ratio, >= 0, also on tokens that M
        masks.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, all with mu in place of the old policy;
      the clip fractions are of tokens that M masks. And `divergence`, the mean D.

    Raises:
      ValueError: as `ppo_loss`, or `divergence` is not a function.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, dppo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = dppo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -1.5
    """
    mu = old_logprobs if sampler_logprobs is None else sampler_logprobs
    batch = policy_batch(logprobs, mu, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _check_region(divergence, delta_low, delta_high)
    _checks.number("pull_coef", pull_coef, at_least=0)

    low, high, d = _leaving(batch, divergence, delta_low, delta_high)  # [B, T] each
    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    objective = jnp.where(low | high, 0.0, -ratio * batch.advantages)  # [B, T]
    if not _checks.static_zero(pull_coef):
        objective = objective + pull_coef * jnp.square(batch.log_ratio)
    metrics = {
        **ratio_metrics(batch),
        "clip_frac_low": metric_total(low, batch.mask),
        "clip_frac_high": metric_total(high, batch.mask),
        "divergence": metric_total(d, batch.mask),
    }
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def _probabilities(
    logprobs: ArrayLike, old_logprobs: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Both log-probs as constants, at most 0."""
    new = jax.lax.stop_gradient(_checks.floating("logprobs", logprobs))
    old = jax.lax.stop_gradient(_checks.floating("old_logprobs", old_logprobs))
    _checks.same_shape(new.ndim, logprobs=new, old_logprobs=old)
    return jnp.minimum(new, 0.0), jnp.minimum(old, 0.0)


def _leaving(
    batch: PolicyBatch,
    divergence: Divergence,
    delta_low: float | jax.Array,
    delta_high: float | jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, T]: tokens that leave the region below or above, and the divergence."""
    log_ratio, a = jax.lax.stop_gradient(batch.log_ratio), batch.advantages
    new = jax.lax.stop_gradient(batch.logprobs)
    d = jax.lax.stop_gradient(divergence(new, new - log_ratio))
    low = (a < 0) & (log_ratio < 0) & (d > delta_low)
    high = (a > 0) & (log_ratio > 0) & (d > delta_high)
    return low, high, d


def _check_region(
    divergence: Divergence, delta_low: float | jax.Array, delta_high: float | jax.Array
) -> None:
    if not callable(divergence):
        raise ValueError(f"divergence must be a function, got {divergence!r}")
    _checks.number("delta_low", delta_low, at_least=0)
    _checks.number("delta_high", delta_high, at_least=0)
