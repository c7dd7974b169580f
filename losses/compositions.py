"""Published methods: a per-token objective, a reduction and optional terms.

Every one is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and gives
`(scalar, metrics)` for `jax.value_and_grad(f, has_aux=True)`. The scalar is this
micro-batch's share of the mini-batch that `counts` was taken from: sum shares and
gradients, never average them. Metrics are (total, count) pairs; add them up and divide
once. The advantages are the other half of a method; the docs have the table.
"""

import functools
from typing import Unpack

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._assembly import (
    OptionalTerms,
    TermsButKlCoef,
    assemble,
    clipped,
    takes_terms,
)
from jaxrl_reason.losses.reductions import (
    Counts,
    fixed_length_mean,
    sequence_mean,
    token_mean,
)
from jaxrl_reason.losses.surrogates import Metrics


@takes_terms
def ppo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """PPO's policy loss: clipped surrogate, mean over tokens.

    L = token_mean(w l_clip) + kl_coef token_mean(KL) - entropy_coef token_mean(H).
    arXiv 1707.06347, equation 9, its value term apart: that is
    `token_mean(value_loss(...))` on the critic. Advantages: `gae`; a KL in the reward:
    `kl_in_reward`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      dual_clip: > 1, None for none.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, `kl` where used and
      `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, ppo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> step = jax.value_and_grad(ppo_loss, has_aux=True)
      >>> advantages = jnp.array([3.0, -1.5])
      >>> (loss, metrics), grads = step(logprobs, old, advantages, mask,
      ...                               batch_counts(mask))
      >>> print(float(loss), grads)
      -1.5 [[-1.  -1. ]
       [ 0.5  0. ]]
    """
    objective, metrics = clipped(
        logprobs, old_logprobs, advantages, mask, clip_low, clip_high, dual_clip
    )
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)


@takes_terms
def grpo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
    kl_coef: float | jax.Array | None = None,
    **terms: Unpack[TermsButKlCoef],
) -> tuple[jax.Array, Metrics]:
    """GRPO: clipped surrogate and KL loss, mean over sequences of their token means.

    L = sequence_mean(w l_clip) + kl_coef sequence_mean(KL) - entropy_coef
    sequence_mean(H). DeepSeekMath, arXiv 2402.03300, equation 3: kl_coef 0.04, k3.
    DeepSeek-R1, arXiv 2501.12948, used 0.001. Advantages: `grpo_advantages`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      dual_clip: > 1, None for none.
      kl_coef: weight of the KL term, >= 0. Left out: the paper's 0.04 where
        `ref_logprobs` is given, no KL term where it is not.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics, as `ppo_loss`.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, grpo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = grpo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -0.75
    """
    if kl_coef is None:
        kl_coef = 0.0 if terms.get("ref_logprobs") is None else 0.04
    objective, metrics = clipped(
        logprobs, old_logprobs, advantages, mask, clip_low, clip_high, dual_clip
    )
    return assemble(
        sequence_mean,
        objective,
        metrics,
        logprobs,
        mask,
        counts,
        kl_coef=kl_coef,
        **terms,
    )


@takes_terms
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
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """Dr. GRPO: clipped surrogate, each sequence's sum divided by one constant.

    L = fixed_length_mean(w l_clip), plus the optional terms reduced alike.
    "Understanding R1-Zero-Like Training", arXiv 2503.20783. Advantages:
    `dr_grpo_advantages`; only both together are the method. The gradient is smaller
    than GRPO's by about the mean length over `length`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      length: the constant, tokens > 0: the generation limit (the paper's is 3000).
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      dual_clip: > 1, None for none.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics, as `ppo_loss`.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

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
    objective, metrics = clipped(
        logprobs, old_logprobs, advantages, mask, clip_low, clip_high, dual_clip
    )
    return assemble(
        functools.partial(fixed_length_mean, length=length),
        objective,
        metrics,
        logprobs,
        mask,
        counts,
        **terms,
    )


@takes_terms
def dapo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.28,
    dual_clip: float | jax.Array | None = None,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """DAPO: clip-higher and the mean over all tokens of the mini-batch.

    L = token_mean(w l_clip) with clip 0.2 below and 0.28 above, plus the optional terms
    reduced alike. arXiv 2503.14476, equations 8, 10 and 12. Advantages:
    `grpo_advantages`; the method's other parts are `group_signal` (dynamic sampling),
    `overlong_mask` and `soft_overlong_penalty`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: >= 0, see `clipped_surrogate`.
      clip_high: >= 0.
      dual_clip: > 1, None for none.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics, as `ppo_loss`.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, dapo_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = dapo_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -1.5
    """
    objective, metrics = clipped(
        logprobs, old_logprobs, advantages, mask, clip_low, clip_high, dual_clip
    )
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)
