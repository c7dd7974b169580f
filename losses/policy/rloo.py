"""RLOO's loss; its advantages, which PRIME uses too, are `rloo_advantages`."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_of_sequence_sums,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def rloo_loss(
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
    """RLOO: REINFORCE with a whole response as one action.

    l = -A log pi, L = 1/N sum_it m_it w_it l_it, N the sequences of the mini-batch,
    plus the optional terms, reduced likewise. arXiv 2402.14740. Advantages:
    `rloo_advantages` of rewards that include the KL (`kl_in_reward`); with
    `remax_advantages` or `opo_advantages` it is the loss of ReMax, arXiv 2310.10505, or
    OPO.

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
      >>> from jaxrl_reason.losses import batch_counts, rloo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = rloo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      0.75
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )

    objective = -batch.advantages * batch.logprobs  # [B, T]
    return total_loss(
        mean_of_sequence_sums, objective, ratio_metrics(batch), batch.mask, terms
    )
