"""NCA on pairs: keeps both implicit rewards near 0 and raises the chosen one."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics
from jaxrl_reason.losses.preference import _pairs


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
    """NCA for pairs: keeps both implicit rewards near 0 and raises the chosen one.

    L = mean[-log sigmoid(r_w) - log sigmoid(-r_w) / 2 - log sigmoid(-r_l) / 2], r =
    beta (log pi - log ref). arXiv 2402.05369. DPO fixes only the difference and lets
    both likelihoods fall; here the term of the chosen response has its own minimum, at
    a reward of log 2.

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
      >>> from jaxrl_reason.losses import nca_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(nca_loss(*pair, beta=0.1)[0]), 4)
      1.3508
    """
    _checks.number("beta", beta, above=0)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    both_down = 0.5 * (jax.nn.log_sigmoid(-good) + jax.nn.log_sigmoid(-bad))
    return _pairs.mean(-jax.nn.log_sigmoid(good) - both_down, pairs, (good, bad))
