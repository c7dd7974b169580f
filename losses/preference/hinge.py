"""The hinge loss of RSO and SLiC on pairs of responses."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics
from jaxrl_reason.losses.preference import _pairs


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
    no reference (pass zeros). Pairs with beta D >= 1 have no gradient; at beta D = 1 it
    is 0, not half the slope as with `jnp.maximum`.

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
      >>> from jaxrl_reason.losses import hinge_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(hinge_loss(*pair)[0]), 4)
      0.85
    """
    _checks.number("beta", beta, above=0)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    short = 1.0 - (good - bad)
    return _pairs.mean(jnp.where(short > 0, short, 0.0), pairs, (good, bad))
