"""Published methods that bound a token's gradient but never drop it: CISPO and SAPO.

Each is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and gives
`(scalar, metrics)`, as the losses of `compositions`.
"""

from typing import Unpack

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._assembly import OptionalTerms, assemble, takes_terms
from jaxrl_reason.losses._metrics import unclipped_metrics, with_clips
from jaxrl_reason.losses._numerics import bounded_exp, policy_arrays
from jaxrl_reason.losses.reductions import Counts, sequence_mean, token_mean
from jaxrl_reason.losses.soft_objectives import cispo, gate, sapo
from jaxrl_reason.losses.surrogates import Metrics, masked_total


@takes_terms
def cispo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    ratio_low: float | jax.Array = 0.0,
    ratio_high: float | jax.Array,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """CISPO: REINFORCE weighed by the clipped ratio, mean over tokens.

    L = token_mean(w cispo), plus the optional terms reduced alike. MiniMax-M1,
    arXiv 2506.13585, equation 4: no lower bound, no KL; the upper bound is not
    published (ScaleRL, arXiv 2510.13786, uses 5 in TRL's reading). Advantages:
    `grpo_advantages`, with DAPO's dynamic sampling and length penalty.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      ratio_low: lowest weight, in [0, 1], see `cispo`.
      ratio_high: highest weight, >= 1: the ratio itself, not its distance from 1.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, where the clip
      fractions are those of the weights, whatever the advantage's sign; `kl` where
      used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, cispo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = cispo_loss(*arrays, counts, ratio_high=5.0)
      >>> float(loss)
      0.5
    """
    objective = cispo(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
    )
    log_ratio, _, live = policy_arrays(logprobs, old_logprobs, advantages, mask)
    ratio = bounded_exp(jax.lax.stop_gradient(log_ratio))
    metrics = with_clips(
        unclipped_metrics(logprobs, old_logprobs, live),
        masked_total(ratio < ratio_low, live),
        masked_total(ratio > ratio_high, live),
    )
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)


@takes_terms
def sapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    tau_positive: float | jax.Array = 1.0,
    tau_negative: float | jax.Array = 1.05,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """SAPO: a smooth gate in place of the clip, mean over sequences.

    L = sequence_mean(w sapo), plus the optional terms reduced alike. arXiv 2511.20347:
    tau 1.0 and 1.05, no KL. Advantages: `grpo_advantages`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      tau_positive: > 0, see `sapo`.
      tau_negative: > 0.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions 0 as nothing is clipped; `gate`, the factor 4 p (1 - p) of the
      gradient, 1 at ratio 1; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

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
    objective = sapo(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        tau_positive=tau_positive,
        tau_negative=tau_negative,
    )
    log_ratio, signs, live = policy_arrays(logprobs, old_logprobs, advantages, mask)
    factor = gate(log_ratio, signs, tau_positive, tau_negative)[2]
    metrics = {
        **unclipped_metrics(logprobs, old_logprobs, mask),
        "gate": masked_total(factor, live),
    }
    return assemble(sequence_mean, objective, metrics, logprobs, mask, counts, **terms)
