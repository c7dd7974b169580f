"""SAPO: a smooth gate in place of the clip."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_sequences,
    metric_total,
    zero_masked,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def sapo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    tau_positive: float | jax.Array = 1.0,
    tau_negative: float | jax.Array = 1.05,
) -> jax.Array:
    """SAPO: a smooth gate in place of the clip.

    rho = exp(logprobs - old_logprobs), tau = tau_positive where A > 0, else
    tau_negative, l = -A (4 / tau) sigmoid(tau (rho - 1)). arXiv 2511.20347. The
    gradient is -A rho w with w = 4 p (1 - p), p = sigmoid(tau (rho - 1)): 1 at ratio 1,
    smaller on both sides. At ratio 1 the value is -2 A / tau and not -A: it is not
    comparable with PPO's. The paper's reduction is `sequence_mean`.

    Public libraries: verl and TRL compute the same.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      tau_positive: > 0; how fast the gate closes where A > 0.
      tau_negative: > 0; likewise elsewhere. The paper's is the larger.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a temperature is not > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import sapo
      >>> same, mask = jnp.array([[-1.0, -2.0]]), jnp.ones((1, 2))
      >>> print(sapo(same, same, jnp.array([1.0]), mask))
      [[-2. -2.]]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _check_temperatures(tau_positive, tau_negative)
    ratio, a = bounded_exp(batch.log_ratio), batch.advantages
    tau = jnp.where(a > 0, tau_positive, tau_negative)
    gate, _ = _sigmoid_gate(tau * (ratio - 1.0))
    return zero_masked(-a * (4.0 / tau) * gate, batch.mask)


def sapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    tau_positive: float | jax.Array = 1.0,
    tau_negative: float | jax.Array = 1.05,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """SAPO: a smooth gate in place of the clip, averaged over sequences.

    rho = exp(logprobs - old_logprobs), tau = tau_positive where A > 0, else
    tau_negative, l = -A (4 / tau) sigmoid(tau (rho - 1)), L = sequence_mean(w l), plus
    the optional terms, reduced likewise. arXiv 2511.20347: tau 1.0 and 1.05, no KL.
    Every token keeps a gradient of bounded size. Advantages: `grpo_advantages`.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      tau_positive: > 0; how fast the gate closes where A > 0.
      tau_negative: > 0; likewise elsewhere. The paper's is the larger.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`; the clip fractions are 0, as nothing is
      clipped. And `gate`, the factor 4 p (1 - p) of the gradient, 1 at ratio 1.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, sapo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = sapo_loss(*arrays, counts, tau_negative=1.0)
      >>> float(loss)
      -1.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _check_temperatures(tau_positive, tau_negative)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    tau = jnp.where(a > 0, tau_positive, tau_negative)  # [B, T]
    gate, slope = _sigmoid_gate(tau * (ratio - 1.0))  # [B, T] each
    objective = -a * (4.0 / tau) * gate  # [B, T]
    metrics = {**ratio_metrics(batch), "gate": metric_total(slope, batch.mask)}
    return total_loss(mean_over_sequences, objective, metrics, batch.mask, terms)


def _sigmoid_gate(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """p = sigmoid(z) and 4 p (1 - p), which is 1 at z = 0."""
    # The smaller of p and 1 - p keeps its digits, and so does the slope p (1 - p).
    small = jax.nn.sigmoid(jnp.where(z > 0, -z, z))
    return jnp.where(z > 0, 1.0 - small, small), 4.0 * small * (1.0 - small)


def _check_temperatures(
    tau_positive: float | jax.Array, tau_negative: float | jax.Array
) -> None:
    _checks.number("tau_positive", tau_positive, above=0)
    _checks.number("tau_negative", tau_negative, above=0)
