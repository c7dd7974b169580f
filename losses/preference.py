"""Losses on pairs that compare the policy with a reference: DPO and its relatives.

D = (log pi(w) - log ref(w)) - (log pi(l) - log ref(l)) for a chosen response w and a
rejected one l. Each function returns the mean over pairs with its metrics; where the
rows are a part of a mini-batch, `num_pairs` is the number of pairs of the whole.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks, _pairs
from jaxrl_reason.losses.surrogates import Metrics

_log_sigmoid = jax.nn.log_sigmoid


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
      label_smoothing: share e of pairs taken to be labelled wrongly, in [0, 0.5).
      valid: [B] bool or 0/1, False on rows that are not pairs; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch, `count_pairs` of it. Left out, these
        rows are the whole mini-batch.

    Returns:
      The scalar (this part's share of the mean) and (total, count) pairs over the valid
      rows: `chosen_reward` and `rejected_reward`, beta (log pi - log ref); `margin`,
      their difference; `accuracy`, [margin > 0].

    Raises:
      ValueError: shapes differ, a setting is out of its range, or `valid` comes without
        `num_pairs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference import dpo_loss
      >>> chosen, rejected = jnp.array([-10.0]), jnp.array([-12.0])
      >>> ref_chosen, ref_rejected = jnp.array([-11.0]), jnp.array([-11.5])
      >>> loss, metrics = dpo_loss(chosen, rejected, ref_chosen, ref_rejected)
      >>> round(float(loss), 4), [float(x) for x in metrics["accuracy"]]
      (0.621, [1.0, 1.0])
    """
    _checks.positive("beta", beta)
    _check_smoothing(label_smoothing)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
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
    """Robust DPO: DPO's loss without the bias that wrong labels give it.

    L = mean[(-(1 - e) log sigmoid(beta D) + e log sigmoid(-beta D)) / (1 - 2e)].
    arXiv 2403.00409: if a share e of the labels is flipped, its expectation is the loss
    on right labels. Unlike DPO's it can be negative.

    Args:
      policy_chosen: [B] `sequence_logprobs` under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0.
      label_smoothing: share e of labels that are wrong, in [0, 0.5).
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference import robust_dpo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(robust_dpo_loss(*pair)[0]), 4)
      0.6022
    """
    _checks.positive("beta", beta)
    _check_smoothing(label_smoothing)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    right, wrong = _log_sigmoid(good - bad), _log_sigmoid(bad - good)
    losses = -(1.0 - label_smoothing) * right + label_smoothing * wrong
    return _pairs.mean(losses / (1.0 - 2.0 * label_smoothing), pairs, (good, bad))


def ipo_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """IPO: squared distance of the log-ratio difference from a fixed margin.

    L = mean[(D - 1/(2 beta))^2]. arXiv 2310.12036, equation 17, beta its tau. Where DPO
    drives D to infinity on a pair that is always labelled alike, IPO stops at the
    margin. OpenRLHF takes sums (`sequence_logprobs`), as here; TRL takes token means:
    hand over `average_logprobs` for that, and beta means something else.

    Args:
      policy_chosen: [B] `sequence_logprobs` (or `average_logprobs`) under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0; the target margin is 1 / (2 beta).
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference import ipo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(ipo_loss(*pair)[0]), 4)
      12.25
    """
    _checks.positive("beta", beta)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    losses = jnp.square(pairs.chosen - pairs.rejected - 0.5 / beta)
    return _pairs.mean(losses, pairs, (beta * pairs.chosen, beta * pairs.rejected))


def hinge_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    *,
    beta: float | jax.Array = 0.1,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Hinge loss of the difference of implicit rewards: RSO, after SLiC.

    L = mean[max(0, 1 - beta D)]. RSO, arXiv 2309.06657; SLiC-HF, arXiv 2305.10425, has
    no reference (give zeros). Pairs with beta D >= 1 have no gradient; at beta D = 1
    the slope is 0, not the half that `jnp.maximum` gives.

    Args:
      policy_chosen: [B] `sequence_logprobs` under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0; TRL's default 0.1.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference import hinge_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(hinge_loss(*pair)[0]), 4)
      0.85
    """
    _checks.positive("beta", beta)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    short = 1.0 - (good - bad)
    return _pairs.mean(jnp.where(short > 0, short, 0.0), pairs, (good, bad))


def nca_loss(
    policy_chosen: ArrayLike,
    policy_rejected: ArrayLike,
    ref_chosen: ArrayLike,
    ref_rejected: ArrayLike,
    *,
    beta: float | jax.Array = 0.01,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """NCA for pairs: each implicit reward is held near 0, the chosen one pulled up.

    L = mean[-log sigmoid(r_w) - log sigmoid(-r_w) / 2 - log sigmoid(-r_l) / 2], r =
    beta (log pi - log ref). arXiv 2402.05369. DPO fixes only the difference and lets
    both likelihoods fall; here the reward of the chosen response has a minimum of its
    own, at log 2.

    Args:
      policy_chosen: [B] `sequence_logprobs` under the policy.
      policy_rejected: [B] likewise.
      ref_chosen: [B] under the reference; a constant.
      ref_rejected: [B] likewise.
      beta: > 0; the paper's 0.01, Light-R1's 0.3.
      valid: [B] bool or 0/1; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch; these rows if left out.

    Returns:
      The scalar and the metrics, as `dpo_loss`.

    Raises:
      ValueError: as `dpo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.preference import nca_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(nca_loss(*pair, beta=0.1)[0]), 4)
      1.3508
    """
    _checks.positive("beta", beta)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.less_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    both_down = 0.5 * (_log_sigmoid(-good) + _log_sigmoid(-bad))
    return _pairs.mean(-_log_sigmoid(good) - both_down, pairs, (good, bad))


def _check_smoothing(value: float | jax.Array) -> None:
    _checks.setting("label_smoothing", value, "in [0, 0.5)", lambda x: 0 <= x < 0.5)
