"""GPG: plain policy gradient that undoes the dilution by groups without signal."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses._groups import Statistics, statistics


def gpg_advantages(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards less the mean of their group, times alpha.

    A_i = alpha (R_i - mean_g(R)), alpha = B / (B - M), B the sequences of the batch and
    M those in groups of equal rewards. GPG, arXiv 2504.02546, with F_norm = 1: the
    gradient is that of the groups with signal alone. The paper's code divides the loss
    by (B - M) / B + 1e-5 instead. verl counts rewards other than 0 for B - M: wrong
    answers dilute, all-right groups do not, and with rewards of +1 and -1 its alpha is
    always 1.

    Args:
      rewards: [B] one a sequence.
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
    count, live = _counts(stats)
    alpha = jnp.where(live > 0, count / jnp.maximum(live, 1), 0.0)
    return jax.lax.stop_gradient(alpha * stats.centred)


def signal_fraction(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Share of the sequences that lie in groups with signal.

    (B - M) / B, the inverse of GPG's alpha (arXiv 2504.02546): below a threshold, 0.6
    in the paper and 0.5 in its code, more prompts are sampled before the update. A
    group has signal where two of its rewards differ.

    Args:
      rewards: [B] one a sequence.
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
    count, live = _counts(statistics(rewards, group_ids, num_groups, valid))
    return live / jnp.maximum(count, 1)


def _counts(stats: Statistics) -> tuple[jax.Array, jax.Array]:
    """B and B - M."""
    ids, member, _ = stats.groups
    return jnp.sum(member), jnp.sum(member & stats.signal[ids])
