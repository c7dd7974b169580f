"""Published methods against the fall of entropy: KL-Cov and Clip-Cov.

Each is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and gives
`(scalar, metrics)`, as the losses of `compositions`. Choose the tokens once, with the
whole mini-batch (`kl_cov_tokens`, `clip_cov_tokens`), and hand each micro-batch its
part as `selected`.
"""

from typing import Unpack

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._assembly import OptionalTerms, assemble, takes_terms
from jaxrl_reason.losses._metrics import unclipped_metrics
from jaxrl_reason.losses.covariance import clip_cov, kl_cov, selection
from jaxrl_reason.losses.covariance_tokens import clip_cov_tokens, kl_cov_tokens
from jaxrl_reason.losses.reductions import Counts, token_mean
from jaxrl_reason.losses.surrogates import Metrics, masked_total, policy_metrics


@takes_terms
def kl_cov_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    fraction: float | jax.Array = 2e-3,
    coef: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """KL-Cov: a penalty on the tokens of highest covariance, mean over tokens.

    L = token_mean(w kl_cov), plus the optional terms reduced alike. arXiv 2505.22617:
    no clip, fraction 2e-3 (7B) or 2e-4 (32B), coef 1. Advantages: `grpo_advantages`
    with `group_signal` as filter.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      fraction: of the live tokens, in (0, 1]; not used where `selected` is given.
      coef: weight of the penalty, >= 0.
      selected: [B, T], this part of what `kl_cov_tokens` gave for the mini-batch; left
        out, the rows given must be the whole mini-batch.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions 0 as nothing is clipped; `selected`, the fraction of the tokens
      selected; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, kl_cov_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = kl_cov_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -1.5
    """
    if selected is None:
        selected = kl_cov_tokens(logprobs, advantages, mask, fraction=fraction)
    objective = kl_cov(
        logprobs, old_logprobs, advantages, mask, coef=coef, selected=selected
    )
    live = _checks.flags(mask)
    metrics = {
        **unclipped_metrics(logprobs, old_logprobs, live),
        "selected": masked_total(selection(selected, live), live),
    }
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)


@takes_terms
def clip_cov_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    fraction: float | jax.Array = 2e-4,
    low: float | jax.Array = 1.0,
    high: float | jax.Array = 5.0,
    key: jax.Array | None = None,
    clip_low: float | jax.Array = 1.0,
    clip_high: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """Clip-Cov: no gradient at a few tokens of high covariance, mean over tokens.

    L = token_mean(w clip_cov), plus the optional terms reduced alike. arXiv 2505.22617:
    fraction 2e-4, band (1, 5); its scripts put both clips at 1. Advantages:
    `grpo_advantages` with `group_signal` as filter.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      fraction: of the live tokens, in (0, 1]; this and the next three are not used
        where `selected` is given.
      low: lower end of the band of covariance.
      high: upper end, > low.
      key: a JAX key, consumed.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      selected: [B, T], this part of what `clip_cov_tokens` gave for the mini-batch;
        left out, the rows given must be the whole mini-batch and `key` be given.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`; `selected`, the
      fraction of the tokens selected; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array, or neither `key` nor `selected` is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, clip_cov_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> drop = jnp.array([[0, 0], [1, 0]])
      >>> arrays = (logprobs, old, advantages, mask)
      >>> loss, metrics = clip_cov_loss(*arrays, counts, selected=drop)
      >>> float(loss)
      -2.0
    """
    if selected is None:
        if key is None:
            raise ValueError("key must be given without selected, got None")
        selected = clip_cov_tokens(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            fraction=fraction,
            low=low,
            high=high,
            key=key,
            clip_low=clip_low,
            clip_high=clip_high,
        )
    objective = clip_cov(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=clip_low,
        clip_high=clip_high,
        selected=selected,
    )
    live = _checks.flags(mask)
    metrics = policy_metrics(
        logprobs,
        old_logprobs,
        advantages,
        live,
        clip_low=clip_low,
        clip_high=clip_high,
    )
    metrics["selected"] = masked_total(selection(selected, live), live)
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)
