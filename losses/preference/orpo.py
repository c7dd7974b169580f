"""ORPO: supervised fine-tuning with an odds ratio, without a reference model."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics, metric_total, zero_masked
from jaxrl_reason.losses.preference import _pairs

# Upper bound of an average log-prob before its odds are taken: there 1 - exp(a) still
# has its digits, and the log-odds are 13.8.
_HIGHEST_AVERAGE = -1e-6


def orpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    *,
    lam: float | jax.Array = 0.1,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """ORPO: supervised fine-tuning with an odds-ratio penalty.

    L = mean[-a_w - lam log sigmoid(z)], z = (a_w - a_l) - (log(1 - e^a_w) -
    log(1 - e^a_l)), a = log pi / length. ORPO, arXiv 2403.07691, equations 6 and 7. For
    the odds a is clipped at -1e-6: a response of probability 1 has no odds, and TRL's
    log1p(-exp(a)) is -inf there. TRL calls lam `beta`, and its NLL covers the prompt
    too.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, of the chosen responses.
      policy_rejected: [B] likewise, of the rejected ones.
      chosen_lengths: [B] tokens; ones if the log-probs are already averages.
      rejected_lengths: [B] tokens.
      lam: coefficient of the penalty, >= 0; the paper's 0.1.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `simpo_loss` with the average log-probs as rewards,
      `log_odds` z, and `nll` -a_w.

    Raises:
      ValueError: as `simpo_loss`, or `lam` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import orpo_loss
      >>> chosen, rejected = jnp.array([-10.0]), jnp.array([-15.0])
      >>> loss, _ = orpo_loss(chosen, rejected, jnp.array([5]), jnp.array([6]))
      >>> round(float(loss), 4)
      2.0452
    """
    _checks.number("lam", lam, at_least=0)
    pairs = _pairs.per_token(
        _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs),
        chosen_lengths,
        rejected_lengths,
    )
    log_odds = _log_odds(pairs.chosen) - _log_odds(pairs.rejected)
    losses = -pairs.chosen - lam * jax.nn.log_sigmoid(log_odds)
    loss, metrics = _pairs.mean(losses, pairs, (pairs.chosen, pairs.rejected))
    log_odds = zero_masked(log_odds, pairs.valid)
    return loss, {
        **metrics,
        "log_odds": metric_total(log_odds, pairs.valid),
        "nll": metric_total(-pairs.chosen, pairs.valid),
    }


def _log_odds(average: jax.Array) -> jax.Array:
    """log(p / (1 - p)) of p = exp(average), the average clipped below 0."""
    a = jnp.where(average > _HIGHEST_AVERAGE, _HIGHEST_AVERAGE, average)
    # Two forms of log(1 - exp(a)), each where it keeps its digits and each on its own
    # arguments, so that no inf enters a gradient.
    near = a > -math.log(2.0)
    close = jnp.log(-jnp.expm1(jnp.where(near, a, -1.0)))
    far = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, a)))
    return a - jnp.where(near, close, far)
