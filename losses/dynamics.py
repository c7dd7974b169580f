"""Statistics of a training step that are not sums over tokens."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._groups import statistics
from jaxrl_reason.losses._moments import moments
from jaxrl_reason.losses._numerics import keep


def explained_variance(
    values: ArrayLike, returns: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """How much of the variance of the returns the critic foresees.

    1 - var(G - v) / var(G) over the live tokens of the batch: 1 for a perfect critic, 0
    for a constant one, negative for one that is worse than that. VC-PPO,
    arXiv 2503.01491, watches it while it pretrains the critic. verl's
    `critic/vf_explained_var` divides by var(G) + 1e-5.

    Args:
      values: [B, T] of the critic.
      returns: [B, T], Monte-Carlo returns or value targets.
      mask: [B, T] bool or 0/1; what lies outside does not matter.

    Returns:
      A float32 scalar, a constant; nan where the returns do not vary.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import explained_variance
      >>> values, returns = jnp.array([[0.75, 0.25, 9.0]]), jnp.array([[1.0, 0.0, 0.0]])
      >>> float(explained_variance(values, returns, jnp.array([[1, 1, 0]])))
      0.75
    """
    values, live = _checks.constant("values", values), _checks.flags(mask)
    returns = _checks.constant("returns", returns)
    _checks.same_shape(2, values=values, returns=returns, mask=live)
    left = moments(returns - values, live, 0)[1]
    total = moments(returns, live, 0)[1]
    return jnp.where(
        total == 0, jnp.nan, 1.0 - left / jnp.where(total == 0, 1.0, total)
    )


def mean_probability(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Mean probability of the generated tokens.

    1/N sum_it m_it exp(logprobs_it): the generation probability of DAPO,
    arXiv 2503.14476, which rises as the entropy falls.

    Args:
      logprobs: [B, T] of the policy that sampled.
      mask: [B, T] bool or 0/1; what lies outside does not matter.

    Returns:
      A float32 scalar, a constant; 0 for an empty mask. For a share of a batch that
      adds up, `masked_total(exp(logprobs), mask)`.

    Raises:
      ValueError: shapes differ, or `logprobs` is not a floating array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import mean_probability
      >>> logprobs = jnp.log(jnp.array([[0.5, 0.25, 1.0]]))
      >>> float(mean_probability(logprobs, jnp.array([[1, 1, 0]])))
      0.375
    """
    logprobs = jax.lax.stop_gradient(_checks.floating("logprobs", logprobs))
    live = _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=live)
    total = jnp.sum(keep(jnp.exp(keep(logprobs, live)), live))
    return total / jnp.maximum(jnp.sum(live), 1)


def zero_advantage_ratio(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Share of the groups whose rewards are all equal, and which teach nothing.

    #{g : max_g(R) = min_g(R)} / #{g : g not empty}. Skywork-OR1, arXiv 2505.22312,
    `batch/without_adv_ratio`. Found by max and min: the deviation of equal rewards is
    seldom 0 in float32. `signal_fraction` counts sequences instead of groups.

    Args:
      rewards: [B] one a sequence.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      A float32 scalar, a constant; 0 where there is no group.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import zero_advantage_ratio
      >>> rewards, ids = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0, 0, 1, 1])
      >>> float(zero_advantage_ratio(rewards, ids, num_groups=2))
      0.5
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    filled = stats.sizes > 0
    silent = jnp.sum(filled & ~stats.signal)
    return silent / jnp.maximum(jnp.sum(filled), 1)
