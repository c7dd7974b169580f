"""Published methods of the form -A log pi: REINFORCE, RLOO and GPG.

Each is `f(logprobs, old_logprobs, advantages, mask, counts, *, ...)` and gives
`(scalar, metrics)`, as the losses of `compositions`. The values tell nothing about
progress, only the gradients count. `old_logprobs` are for the metrics alone: there is
no ratio, the methods are meant for one update a rollout.
"""

from typing import Unpack

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses._assembly import OptionalTerms, assemble, takes_terms
from jaxrl_reason.losses._metrics import unclipped_metrics
from jaxrl_reason.losses.reductions import Counts, sequence_sum_mean, token_mean
from jaxrl_reason.losses.surrogates import Metrics, policy_gradient


@takes_terms
def reinforce_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """REINFORCE: the log-probability weighed by the advantage, mean over tokens.

    L = token_mean(-w A log pi), plus the optional terms reduced alike. Williams 1992.
    Advantages: any, `discounted_returns` less a baseline say. At ratio 1 its gradient
    is that of `ppo_loss`.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant;
        for the metrics alone.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions 0 as nothing is clipped; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

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
    objective = policy_gradient(logprobs, advantages, mask)
    metrics = unclipped_metrics(logprobs, old_logprobs, mask)
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)


@takes_terms
def rloo_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """RLOO: REINFORCE with a whole response as one action.

    L = sequence_sum_mean(-w A log pi), plus the optional terms reduced alike.
    arXiv 2402.14740. Advantages: `rloo_advantages` on rewards that hold the KL
    (`kl_in_reward`); with `remax_advantages` or `opo_advantages` it is the loss of
    ReMax, arXiv 2310.10505, or OPO.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant;
        for the metrics alone.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions 0 as nothing is clipped; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

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
    objective = policy_gradient(logprobs, advantages, mask)
    metrics = unclipped_metrics(logprobs, old_logprobs, mask)
    return assemble(
        sequence_sum_mean, objective, metrics, logprobs, mask, counts, **terms
    )


@takes_terms
def gpg_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    **terms: Unpack[OptionalTerms],
) -> tuple[jax.Array, Metrics]:
    """GPG: plain policy gradient with a group's mean as the baseline.

    L = token_mean(-w A log pi), plus the optional terms reduced alike.
    arXiv 2504.02546: no ratio, no clip, no KL, no reference. Advantages:
    `gpg_advantages`, which hold the paper's alpha, the correction for groups without
    signal; verl counts wrong answers there instead.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant;
        for the metrics alone.
      advantages: [B] or [B, T]; a constant.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      **terms: optional KL, entropy and weights, see `OptionalTerms`.

    Returns:
      The scalar and the metrics: those of `policy_metrics`, the clip
      fractions 0 as nothing is clipped; `kl` where used and `entropy` where given.

    Raises:
      ValueError: shapes differ, a setting is out of its range, or a term's coefficient
        is set but not its array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, gpg_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = gpg_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      0.5
    """
    objective = policy_gradient(logprobs, advantages, mask)
    metrics = unclipped_metrics(logprobs, old_logprobs, mask)
    return assemble(token_mean, objective, metrics, logprobs, mask, counts, **terms)
