"""DPO and its variants: robust to wrong labels, normalised by length, with an NLL term.

D = (log pi(w) - log ref(w)) - (log pi(l) - log ref(l)) for a chosen response w and a
rejected one l. Each function returns the mean over pairs with its metrics; if the rows
are part of a mini-batch, `num_pairs` is the number of pairs in all of it.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics, metric_total, zero_masked
from jaxrl_reason.losses.preference import _pairs


def dpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
    label_smoothing: float | jax.Array = 0.0,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """DPO: logistic loss of the difference of implicit rewards.

    L = mean[-(1 - e) log sigmoid(beta D) - e log sigmoid(-beta D)], e =
    `label_smoothing`. DPO, arXiv 2305.18290, equation 7, with e = 0; with e > 0
    "conservative" DPO (cDPO, TRL's and OpenRLHF's `label_smoothing`). The gradient is
    -beta sigmoid(-beta D) (grad log pi(w) - grad log pi(l)) at e = 0.

    Args:
      policy_chosen: [B] `sequence_logprobs` of the chosen responses under the policy.
      policy_rejected: [B] likewise, of the rejected ones.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0; the paper's 0.1.
      label_smoothing: assumed fraction e of wrongly labelled pairs, in [0, 0.5).
      valid: [B] bool or 0/1, False on rows that are not pairs; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch, `count_pairs` of it. Left out, these
        rows are the whole mini-batch.

    Returns:
      The scalar (what this part adds to the mean) and (total, count) pairs over valid
      rows: `chosen_reward` and `rejected_reward`, beta (log pi - log ref); `margin`,
      their difference; `accuracy`, [margin > 0].

    Raises:
      ValueError: shapes differ, a setting is out of its range, or `valid` comes without
        `num_pairs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import dpo_loss
      >>> chosen, rejected = jnp.array([-10.0]), jnp.array([-12.0])
      >>> ref_chosen, ref_rejected = jnp.array([-11.0]), jnp.array([-11.5])
      >>> loss, metrics = dpo_loss(chosen, rejected, ref_chosen, ref_rejected)
      >>> round(float(loss), 4), [float(x) for x in metrics["accuracy"]]
      (0.621, [1.0, 1.0])
    """
    _checks.number("beta", beta, above=0)
    _check_smoothing(label_smoothing)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    return _pairs.logistic(pairs, beta, label_smoothing)


def robust_dpo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
    label_smoothing: float | jax.Array = 0.1,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Robust DPO: DPO's loss without the bias of wrong labels.

    L = mean[(-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)) / (1 - 2e)].
    arXiv 2403.00409: if a fraction e of the labels is flipped, its expectation is the
    loss on right labels. Unlike DPO's it can be negative.

    Args:
      policy_chosen: [B] `sequence_logprobs` under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0.
      label_smoothing: fraction e of labels that are wrong, in [0, 0.5).
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import robust_dpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(robust_dpo_loss(*pair)[0]), 4)
      0.6022
    """
    _checks.number("beta", beta, above=0)
    _check_smoothing(label_smoothing)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    right, wrong = jax.nn.log_sigmoid(good - bad), jax.nn.log_sigmoid(bad - good)
    losses = -(1.0 - label_smoothing) * right + label_smoothing * wrong
    return _pairs.mean(losses / (1.0 - 2.0 * label_smoothing), pairs, (good, bad))


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
    """DPO on log-ratios per token, so that long responses do not count more.

    L = mean[-log sigmoid(beta (d_w / |w| - d_l / |l|))], d = log pi - log ref. Tulu 3,
    arXiv 2411.15124, equation 6. The same as `dpo_loss` of `average_logprobs`.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      chosen_lengths: [B] tokens |w| of the chosen responses.
      rejected_lengths: [B] tokens |l| of the rejected ones.
      beta: > 0; Tulu 3's 5, fifty times DPO's, since the difference is per token.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`, with rewards per token.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import length_normalised_dpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> lengths = [jnp.array([5]), jnp.array([6])]
      >>> round(float(length_normalised_dpo_loss(*pair, *lengths, beta=0.1)[0]), 4)
      0.6791
    """
    _checks.number("beta", beta, above=0)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
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
    1: iterated, with the policy of the previous round as the reference. DPO alone
    lowers the likelihood of both responses; the second term keeps up that of the chosen
    one.

    Args:
      policy_chosen: [B] `sequence_logprobs`, sums, under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      chosen_lengths: [B] tokens |w| of the chosen responses.
      beta: > 0; the paper's 0.1.
      alpha: coefficient of the second term, >= 0; the paper's 1.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`, and `nll`, per token of the chosen
      responses.

    Raises:
      ValueError: as `dpo_loss`, or `alpha` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import irpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(irpo_loss(*pair, jnp.array([5]))[0]), 4)
      2.621
    """
    _checks.number("beta", beta, above=0)
    _checks.number("alpha", alpha, at_least=0)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    nll = -_pairs.divide("chosen_lengths", policy.chosen, chosen_lengths, policy.valid)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    loss, metrics = _pairs.logistic(pairs, beta)
    loss = loss + alpha * jnp.sum(zero_masked(nll, pairs.valid)) / pairs.total
    return loss, {**metrics, "nll": metric_total(nll, pairs.valid)}


def _check_smoothing(value: float | jax.Array) -> None:
    _checks.number("label_smoothing", value, at_least=0, below=0.5)
