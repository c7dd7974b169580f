"""Preference losses with a reference that count tokens: by length, or with an NLL.

The arguments are those of `jaxrl_reason.losses.preference`, sums over tokens, and the
lengths by which to divide them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks, _pairs
from jaxrl_reason.losses._numerics import keep, live_total
from jaxrl_reason.losses.surrogates import Metrics


def length_normalised_dpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    *,
    beta: float | jax.Array = 5.0,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """DPO on log-ratios a token, so that a long response does not weigh more.

    L = mean[-log sigmoid(beta (d_w / |w| - d_l / |l|))], d = log pi - log ref. Tulu 3,
    arXiv 2411.15124, equation 6. The same as `dpo_loss` of `average_logprobs`.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      chosen_lengths: [B] tokens |w| of the chosen responses.
      rejected_lengths: [B] tokens |l| of the rejected ones.
      beta: > 0; Tulu 3's 5, fifty times DPO's, for the difference is one a token.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`, with rewards a token.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference_lengths import length_normalised_dpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> lengths = [jnp.array([5]), jnp.array([6])]
      >>> round(float(length_normalised_dpo_loss(*pair, *lengths, beta=0.1)[0]), 4)
      0.6791
    """
    _checks.positive("beta", beta)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    pairs = _pairs.per_token(pairs, chosen_lengths, rejected_lengths)
    return _pairs.logistic(pairs, beta)


def irpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
    alpha: float | jax.Array = 1.0,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """IRPO: DPO and the likelihood of the chosen response.

    L = mean[-log sigmoid(beta D) - alpha log pi(w) / |w|]. arXiv 2404.19733, equation
    1: iterated with the policy of the round before as the reference. DPO alone lowers
    the likelihood of both responses; the second term holds that of the chosen one.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      chosen_lengths: [B] tokens |w| of the chosen responses.
      beta: > 0; the paper's 0.1.
      alpha: weight of the second term, >= 0; the paper's 1.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`, and `nll`, that of the chosen responses
      a token.

    Raises:
      ValueError: as `dpo_loss`, or `alpha` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference_lengths import irpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(irpo_loss(*pair, jnp.array([5]))[0]), 4)
      2.621
    """
    _checks.positive("beta", beta)
    _checks.not_negative("alpha", alpha)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    nll = -_pairs.divide("chosen_lengths", policy.chosen, chosen_lengths, policy.live)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    loss, metrics = _pairs.logistic(pairs, beta)
    loss = loss + alpha * jnp.sum(keep(nll, pairs.live)) / pairs.total
    return loss, {**metrics, "nll": live_total(nll, pairs.live)}
