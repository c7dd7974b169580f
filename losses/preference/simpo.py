"""SimPO: average log-probs as rewards, without a reference model."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics
from jaxrl_reason.losses.preference import _pairs


def simpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    *,
    beta: float | jax.Array = 2.5,
    gamma: float | jax.Array = 1.375,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """SimPO: the average log-prob is the reward, with a target margin.

    L = mean[-log sigmoid(beta log pi(w)/|w| - beta log pi(l)/|l| - gamma)]. SimPO,
    arXiv 2405.14734, equation 6. TRL and the paper's code set gamma as a fraction of
    beta (0.55); here it is gamma itself.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, of the chosen responses.
      policy_rejected: [B] likewise, of the rejected ones.
      chosen_lengths: [B] tokens |w|; ones if the log-probs are already averages.
      rejected_lengths: [B] tokens |l|.
      beta: > 0; the paper's code 2.5.
      gamma: target margin, >= 0; 0.55 beta = 1.375.
      valid: [B] bool or 0/1, False on rows that are not pairs; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch, `count_pairs` of it. Left out, these
        rows are the whole mini-batch.

    Returns:
      The scalar (what this part adds to the mean) and (total, count) pairs over valid
      rows: `chosen_reward` and `rejected_reward`, beta times the average log-prob;
      `margin`, their difference without gamma; `accuracy`, [margin > 0].

    Raises:
      ValueError: shapes differ, a setting is out of its range, or `valid` comes without
        `num_pairs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import simpo_loss
      >>> chosen, rejected = jnp.array([-10.0]), jnp.array([-12.0])
      >>> loss, _ = simpo_loss(chosen, rejected, jnp.array([5]), jnp.array([6]))
      >>> round(float(loss), 4)
      1.6004
    """
    _checks.number("beta", beta, above=0)
    _checks.number("gamma", gamma, at_least=0)
    pairs = _pairs.per_token(
        _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs),
        chosen_lengths,
        rejected_lengths,
    )
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    return _pairs.mean(-jax.nn.log_sigmoid(good - bad - gamma), pairs, (good, bad))
