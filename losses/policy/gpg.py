"""GPG: plain policy gradient, corrected for the groups without signal."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    Statistics,
    mean_over_tokens,
    share,
    statistics,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def gpg_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards minus the mean of their group, times alpha.

    A_i = alpha (R_i - mean_g(R)), alpha = B / (B - M), B the sequences of the batch and
    M those in groups of equal rewards. GPG, arXiv 2504.02546, with F_norm = 1: the
    gradient is that of only the groups with signal. The paper's code divides the loss
    by (B - M) / B + 1e-5 instead. verl counts rewards other than 0 as B - M: wrong
    answers dilute the gradient, all-right groups do not, and with rewards of +1 and -1
    its alpha is always 1.

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0 and is
        not counted.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out, not counted, and get 0.

    Returns:
      [B] float32 constants; exactly 0 in groups of equal rewards and groups of one, and
      everywhere where no group has signal.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gpg_advantages
      >>> rewards, ids = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0, 0, 1, 1])
      >>> print(gpg_advantages(rewards, ids, num_groups=2))
      [ 1. -1.  0.  0.]
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    sequences, with_signal = _counts(stats)
    alpha = share(sequences, with_signal, stats.centred)
    alpha = jnp.where(with_signal > 0, alpha, 0.0)
    return jax.lax.stop_gradient(alpha * stats.centred)


def gpg_loss(
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
    """GPG: plain policy gradient with a group's mean as the baseline.

    l = -A log pi, L = token_mean(w l), plus the optional terms, reduced likewise.
    arXiv 2504.02546: no ratio, no clip, no KL, no reference. Advantages:
    `gpg_advantages`, which include the paper's alpha, the correction for groups without
    signal; verl counts wrong answers instead.

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
      >>> from jaxrl_reason.losses import batch_counts, gpg_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = gpg_loss(logprobs, old, advantages, mask, counts)
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


def signal_fraction(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Fraction of the sequences that lie in groups with signal.

    (B - M) / B, the inverse of GPG's alpha (arXiv 2504.02546): below a threshold, 0.6
    in the paper and 0.5 in its code, more prompts are sampled before the update. A
    group has signal where two of its rewards differ.

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      A float32 scalar in [0, 1]; 0 for a batch without sequences.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import signal_fraction
      >>> rewards, ids = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0, 0, 1, 1])
      >>> float(signal_fraction(rewards, ids, num_groups=2))
      0.5
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    sequences, with_signal = _counts(stats)
    return share(with_signal, sequences, stats.centred)


def _counts(stats: Statistics) -> tuple[jax.Array, jax.Array]:
    """B and B - M."""
    ids, member, _ = stats.groups
    return jnp.sum(member), jnp.sum(member & stats.signal[ids])
