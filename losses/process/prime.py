"""PRIME: process rewards implied by a language model trained only on outcomes."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Groups,
    Metrics,
    metric_total,
    read_groups,
    zero_masked,
)
from jaxrl_reason.losses.advantages import rloo_advantages
from jaxrl_reason.losses.reductions import sequence_sum_mean
from jaxrl_reason.losses.returns import discounted_returns


def implicit_process_rewards(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    beta: float | jax.Array = 0.05,
) -> jax.Array:
    """The reward of each token implied by a model trained on outcomes.

    r_t = beta (log phi(y_t) - log ref(y_t)). Implicit process rewards, arXiv
    2412.01981; PRIME, arXiv 2502.01456, beta 0.05. phi is a language model that is
    initialised from the policy and trained by `implicit_prm_loss`.

    Args:
      logprobs: [B, T] of phi; differentiable, for its own loss.
      ref_logprobs: [B, T] of the frozen reference; a constant.
      mask: [B, T] bool or 0/1, True on the response's tokens.
      beta: > 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `beta` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import implicit_process_rewards
      >>> phi, ref = jnp.array([[-0.5, -1.0]]), jnp.array([[-0.7, -0.9]])
      >>> print(implicit_process_rewards(phi, ref, jnp.ones((1, 2))).round(4))
      [[ 0.01  -0.005]]
    """
    _checks.number("beta", beta, above=0)
    logprobs = _checks.floating("logprobs", logprobs)
    ref = jax.lax.stop_gradient(_checks.floating("ref_logprobs", ref_logprobs))
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, ref_logprobs=ref, mask=mask)
    return beta * zero_masked(logprobs - ref, mask)


def implicit_prm_loss(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    labels: ArrayLike,
    counts: Counts,
    *,
    beta: float | jax.Array = 0.05,
) -> tuple[jax.Array, Metrics]:
    """Loss of the implicit process reward model: its sum must predict the outcome.

    L = mean_i[-y_i log sigmoid(s_i) - (1 - y_i) log sigmoid(-s_i)], s_i = sum_t m_it
    r_it. PRIME, arXiv 2502.01456. Rows whose outcome is not known (the
    grader failed, the response was truncated) are excluded by masking them fully.

    Args:
      logprobs: [B, T] of phi, the model being trained.
      ref_logprobs: [B, T] of the frozen reference; a constant.
      mask: [B, T] bool or 0/1.
      labels: [B] outcomes, 1 right and 0 wrong, or between; constants.
      counts: `batch_counts(mask)` of the whole mini-batch.
      beta: > 0.

    Returns:
      The scalar (what this part adds to the mean over non-empty sequences) and (total,
      count) pairs over the non-empty rows: `score` s and `accuracy`, [(s > 0) = (y >
      1/2)].

    Raises:
      ValueError: shapes differ, `beta` <= 0, or `counts` is not a Counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts
      >>> from jaxrl_reason.losses import implicit_prm_loss
      >>> phi, ref = jnp.array([[-0.5, -1.0]]), jnp.array([[-0.7, -0.9]])
      >>> mask, labels = jnp.ones((1, 2)), jnp.array([1])
      >>> loss, _ = implicit_prm_loss(phi, ref, mask, labels, batch_counts(mask))
      >>> round(float(loss), 4)
      0.6907
    """
    mask = _checks.as_bool(mask)
    rewards = implicit_process_rewards(logprobs, ref_logprobs, mask, beta=beta)
    labels, rows = _checks.constant("labels", labels), jnp.any(mask, axis=1)
    _checks.same_shape(1, labels=labels, mask_rows=rows)
    scores, labels = jnp.sum(rewards, axis=1), zero_masked(labels, rows)
    right = labels * jax.nn.log_sigmoid(scores)
    wrong = (1.0 - labels) * jax.nn.log_sigmoid(-scores)
    loss = sequence_sum_mean((-right - wrong)[:, None], rows[:, None], counts)
    return loss, {
        "score": metric_total(scores, rows),
        "accuracy": metric_total((scores > 0) == (labels > 0.5), rows),
    }


def prime_advantages(
    process_rewards: ArrayLike,
    outcomes: ArrayLike,
    mask: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    gamma: float | jax.Array = 1.0,
    process_coef: float | jax.Array = 1.0,
    outcome_coef: float | jax.Array = 1.0,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """PRIME: token reward-to-go plus outcome, each minus the others' mean.

    A_t = c_p sum_{s >= t} gamma^(s-t) (r_s - mean_{j != i} rbar_j) + c_o (o_i -
    mean_{j != i} o_j), rbar_j the mean token reward of response j, over the other
    responses to the prompt. PRIME, arXiv 2502.01456. verl's recipe has K / (K - 1)
    (r_s - rbar_g) in the first bracket, rbar_g the mean of the K means: (r_s - rbar_i)
    / (K - 1) more per token. Its coefficients are 5 and 5, and it whitens at the end.

    Args:
      process_rewards: [B, T] token rewards, of `implicit_process_rewards`.
      outcomes: [B] rewards of the whole responses, 0 or 1.
      mask: [B, T] bool or 0/1.
      group_ids: [B] int in [0, num_groups); a row with any other id gets 0.
      num_groups: static.
      gamma: discount from one unmasked token to the next, in [0, 1].
      process_coef: c_p, finite.
      outcome_coef: c_o, finite.
      valid: [B] bool or 0/1; the others are left out of the means and get 0. By default
        all rows that have tokens are valid.

    Returns:
      [B, T] float32 constants, zero outside the mask and in groups of one, which have
      no baseline.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import prime_advantages
      >>> rewards, ids = jnp.array([[0.5, 0.0], [0.25, 0.25]]), jnp.array([0, 0])
      >>> ones, outcomes = jnp.ones((2, 2)), jnp.array([1, 0])
      >>> print(prime_advantages(rewards, outcomes, ones, ids, num_groups=1))
      [[ 1.    0.75]
       [-1.   -1.  ]]
    """
    _checks.number("process_coef", process_coef)
    _checks.number("outcome_coef", outcome_coef)
    rewards = _checks.constant("process_rewards", process_rewards)
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, process_rewards=rewards, mask=mask)
    rows = jnp.any(mask, axis=1)
    given = _checks.as_bool(valid, rows)
    _checks.same_shape(1, valid=given, mask_rows=rows)
    groups = read_groups(group_ids, num_groups, rows & given)
    outcome = rloo_advantages(
        outcomes, group_ids, num_groups=num_groups, valid=groups.member
    )
    rewards = zero_masked(rewards, mask)
    lengths = jnp.sum(mask, axis=1, dtype=jnp.float32)
    means = jnp.sum(rewards, axis=1) / jnp.maximum(lengths, 1.0)
    baseline, member = _mean_of_others(means, groups)
    inside = mask & member[:, None]
    centred = rewards - _checks.broadcast_to_tokens("baseline", baseline, inside)
    process = discounted_returns(centred, inside, gamma=gamma)
    advantages = process_coef * process + _checks.broadcast_to_tokens(
        "outcomes", outcome_coef * outcome, mask
    )
    return jax.lax.stop_gradient(zero_masked(advantages, inside))


def _mean_of_others(x: jax.Array, groups: Groups) -> tuple[jax.Array, jax.Array]:
    """Mean over the other members of each row's group, and which rows have any."""
    sizes = groups.total(jnp.ones_like(x))
    others = sizes[groups.ids] - 1
    total = groups.total(x)[groups.ids] - x
    return total / jnp.maximum(others, 1.0), groups.member & (others > 0)
