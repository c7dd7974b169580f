"""REINFORCE's loss."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_over_tokens,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def reinforce_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """REINFORCE: the log-probability weighted by the advantage, averaged over tokens.

    l = -A log pi, L = token_mean(w l), plus the optional terms, reduced likewise.
    Williams 1992. It has no ratio: one update per rollout. Advantages: any, such as
    `discounted_returns` minus a baseline. The value does not measure progress; at ratio
    1 the gradient is that of `ppo_loss`.

    Args:
      logprobs, mask: [B, T], as in `ppo_loss`.
      old_logprobs: [B, T], for the metrics only.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`; the clip fractions are 0, as nothing is
      clipped.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, reinforce_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = reinforce_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      0.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )

    objective = -batch.advantages * batch.logprobs  # [B, T]
    return total_loss(
        mean_over_tokens, objective, ratio_metrics(batch), batch.mask, terms
    )
