"""VESPO: REINFORCE weighted by a smooth kernel of the whole response's ratio."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    LOG_RATIO_BOUND,
    Counts,
    Metrics,
    accurate_sum,
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

# c1 and c2, for one sign of the advantage.
Kernel = tuple[float | jax.Array, float | jax.Array]


def vespo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    kernel_positive: Kernel = (2.0, 3.0),
    kernel_negative: Kernel = (3.0, 2.0),
) -> jax.Array:
    """VESPO: REINFORCE weighted by a smooth kernel of the whole response's ratio.

    W_i = prod_t (pi / mu)_it, phi(W) = W^c1 exp(c2 (1 - W)), l_it = -sg(phi(W_i)) A_it
    logprobs_it. arXiv 2602.10693 (v3), appendix I and the kernel of section 3: phi(1) =
    1, it decreases on both sides, and W is not normalised by length. log W is clipped
    to +-20.

    Args:
      logprobs, old_logprobs, advantages, mask, kernel_positive, kernel_negative: as in
        `vespo_loss`.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: as `vespo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import vespo
      >>> old = jnp.array([[-1.0, -2.0]])
      >>> new = old + jnp.log(jnp.array([[2.0, 0.5]]))  # W = 1
      >>> print(vespo(new, old, jnp.array([1.0]), jnp.ones((1, 2))).round(4))
      [[0.3069 2.6931]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _check_kernels(kernel_positive, kernel_negative)
    weight = _kernel_weight(batch, kernel_positive, kernel_negative)
    return zero_masked(-weight * batch.advantages * batch.logprobs, batch.mask)


def vespo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    kernel_positive: Kernel = (2.0, 3.0),
    kernel_negative: Kernel = (3.0, 2.0),
    sampler_logprobs: ArrayLike | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """VESPO: REINFORCE weighted by a kernel of the response's ratio, over tokens.

    W_i = prod_t (pi / mu)_it, phi(W) = W^c1 exp(c2 (1 - W)),
    l_it = -sg(phi(W_i)) A_it logprobs_it, L = token_mean(w l), plus the optional terms,
    reduced likewise. arXiv 2602.10693 (v3), appendix I, with (c1, c2) of section 4.1:
    (2, 3) where A >= 0, (3, 2) where A < 0. The paper leaves the mean open; that over
    tokens is TRL's (July 2026). Every response keeps a gradient of bounded size.
    Advantages: `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`; rows are whole responses.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      kernel_positive: (c1, c2), each > 0, where A >= 0.
      kernel_negative: (c1, c2), each > 0, where A < 0.
      sampler_logprobs: [B, T] as the sampler reported them, for mu; `old_logprobs`
        where they are left out.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`, all with mu in place of the old policy;
      the clip fractions are 0, as nothing is clipped. And `phi`, the weight of a token.

    Raises:
      ValueError: as `ppo_loss`, or a kernel is not two numbers > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, vespo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = vespo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      0.5
    """
    mu = old_logprobs if sampler_logprobs is None else sampler_logprobs
    batch = policy_batch(logprobs, mu, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _check_kernels(kernel_positive, kernel_negative)

    weight = _kernel_weight(batch, kernel_positive, kernel_negative)  # [B, T]
    objective = -weight * batch.advantages * batch.logprobs  # [B, T]
    metrics = {**ratio_metrics(batch), "phi": metric_total(weight, batch.mask)}
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def _kernel_weight(batch: PolicyBatch, positive: Kernel, negative: Kernel) -> jax.Array:
    """[B, T]: phi(W) of each row, by the sign of each token's advantage."""
    total = jax.lax.stop_gradient(accurate_sum(batch.log_ratio, axis=1))[:, None]
    log_w = jnp.clip(total, -LOG_RATIO_BOUND, LOG_RATIO_BOUND)  # [B, 1]
    bad = batch.advantages < 0  # [B, T]
    c1 = jnp.where(bad, negative[0], positive[0])
    c2 = jnp.where(bad, negative[1], positive[1])
    # 1 - W without cancellation near W = 1.
    return jnp.exp(c1 * log_w - c2 * jnp.expm1(log_w))


def _check_kernels(positive: Kernel, negative: Kernel) -> None:
    for name, kernel in {
        "kernel_positive": positive,
        "kernel_negative": negative,
    }.items():
        if not isinstance(kernel, tuple) or len(kernel) != 2:
            raise ValueError(f"{name} must be a pair (c1, c2), got {kernel!r}")
        for part, value in zip(("c1", "c2"), kernel, strict=True):
            _checks.number(f"{part} of {name}", value, above=0)
