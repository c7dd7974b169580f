"""PPO's policy loss, and what the arguments of all policy losses mean."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_tokens,
)
from jaxrl_reason.losses._policy import (
    check_clip,
    clip_ratio,
    policy_batch,
    ratio_metrics,
    total_loss,
)


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
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """PPO's policy loss: the clipped surrogate, averaged over tokens.

    rho = exp(logprobs - old_logprobs),
    l = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)),
    L = token_mean(w l) + kl_coef token_mean(KL) - entropy_coef token_mean(H).
    arXiv 1707.06347, equations 7 and 9, without the value term: that is
    `token_mean(value_loss(...))` of the critic. Dual clip c: where A < 0,
    l <= -A c (arXiv 1912.09729). Advantages: `gae`; a KL in the reward: `kl_in_reward`.

    The arguments besides the clip are those of every policy loss, here and in the other
    modules of `jaxrl_reason.losses.policy`.

    Args:
      logprobs: [B, T] log-probs of the tokens under the policy being trained.
      old_logprobs: [B, T] under the policy at the start of the update; a constant.
      advantages: [B, T], or [B] for one per sequence; a constant.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced; what the other
        arrays hold where it is 0 does not matter.
      counts: `batch_counts` of the whole mini-batch.
      clip_low: the ratio is clipped below at 1 - clip_low; >= 0.
      clip_high: the ratio is clipped above at 1 + clip_high; >= 0.
      dual_clip: bound > 1 of the ratio where A < 0; None for none.
      ref_logprobs: [B, T] under the reference, a constant; needed for a KL term only.
      kl_coef: coefficient of the KL term, >= 0; for a plain 0 it is not computed.
      kl_estimator: the value of the KL term, one of the names of `kl_penalty`; its
        ratio, if any, is to the old policy.
      kl_gradient: likewise its gradient; the estimator's own if left out.
      entropy: [B, T] of the policy, for the metrics and the bonus.
      entropy_coef: coefficient of the entropy bonus, finite; may be negative.
      weights: [B, T] or [B] constants w that multiply only the objective, such as a
        rollout correction.

    Returns:
      The scalar, this micro-batch's part of the mean over the mini-batch: sum the parts
      and their gradients, never average them. And metrics as (total, count) pairs:
      those of `policy_metrics`, `kl` where it is used, `entropy` where it is given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term has a
        coefficient but no array.

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
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    check_clip(clip_low, clip_high, dual_clip)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    a = batch.advantages  # [B, T]
    objective = -a * clip_ratio(ratio, a, clip_low, clip_high, dual_clip)  # [B, T]
    metrics = ratio_metrics(batch, clip_low, clip_high, dual_clip)
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)
