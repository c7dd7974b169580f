"""VAPO's policy loss: clip-higher and a pull towards what was right."""

from typing import Unpack

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._assembly import (
    OptionalTerms,
    assemble,
    clipped,
    takes_terms,
)
from jaxrl_reason.losses._numerics import spread
from jaxrl_reason.losses.likelihood import nll
from jaxrl_reason.losses.reductions import Counts, token_mean
from jaxrl_reason.losses.surrogates import Metrics, masked_total


@takes_terms
def vapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    correct: ArrayLike,
    positive_counts: Counts,
    positive_coef: float | jax.Array = 0.1,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.28,
    dual_clip: float | jax.Array | None = None,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """VAPO: clip-higher, mean over tokens, plus the likelihood of correct responses.

    L = token_mean(w l_clip) + positive_coef L_NLL, with clip 0.2 below and 0.28 above
    and L_NLL = -(sum over correct sequences of logprobs) / (their tokens), plus the
    optional terms reduced alike. arXiv 2504.05118. Advantages: `gae` with
    `length_adaptive_lambda` for the policy and lambda 1 for the critic's targets, and
    `value_loss` for the critic. Without a correct sequence L_NLL is 0. The survey
    arXiv 2505.00551 prints L_NLL with the other sign.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      correct: [B] bool or 0/1, the sequences to be imitated.
      positive_counts: `batch_counts(mask & correct[:, None])` of the whole mini-batch:
        the tokens of its correct sequences.
      positive_coef: weight of L_NLL, >= 0; with a plain 0 it is not computed.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      dual_clip: > 1, None for none.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`;
      `positive_nll` over the tokens of correct sequences, unless its weight is 0;
      `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, vapo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask, correct = jnp.array([[1, 1], [1, 0]]), jnp.array([1, 0])
      >>> positive = batch_counts(mask * correct[:, None])
      >>> arrays = (logprobs, old, jnp.array([3.0, -1.5]), mask)
      >>> loss, metrics = vapo_loss(*arrays, batch_counts(mask), correct=correct,
      ...                           positive_counts=positive)
      >>> round(float(loss), 4)  # -1.5 + 0.1 * 0.75
      -1.425
    """
    _checks.not_negative("positive_coef", positive_coef)
    live = _checks.flags(mask)
    objective, metrics = clipped(
        logprobs, old_logprobs, advantages, live, clip_low, clip_high, dual_clip
    )
    loss, metrics = assemble(
        token_mean, objective, metrics, logprobs, mask, counts, **terms
    )
    if _checks.static_zero(positive_coef):
        return loss, metrics
    good = spread("correct", _checks.constant("correct", correct), live) != 0
    positive = nll(logprobs, good)
    loss = loss + positive_coef * token_mean(positive, good, positive_counts)
    return loss, {**metrics, "positive_nll": masked_total(positive, good)}
