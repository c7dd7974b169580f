"""IPO: a squared distance from a fixed margin in place of DPO's logistic loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics
from jaxrl_reason.losses.preference import _pairs


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
    drives D to infinity on a pair that always has the same label, IPO stops at the
    margin. OpenRLHF takes sums (`sequence_logprobs`), as here; TRL takes token means:
    pass `average_logprobs` for that, which changes the meaning of beta.

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
      >>> from jaxrl_reason.losses import ipo_loss
      >>> pair = [jnp.array([x]) for x in (-10.0, -12.0, -11.0, -11.5)]
      >>> round(float(ipo_loss(*pair)[0]), 4)
      12.25
    """
    _checks.number("beta", beta, above=0)
    policy = _pairs.read_pairs(policy_chosen, policy_rejected, valid, num_pairs)
    pairs = _pairs.minus_reference(policy, ref_chosen, ref_rejected)
    losses = jnp.square(pairs.chosen - pairs.rejected - 0.5 / beta)
    return _pairs.mean(losses, pairs, (beta * pairs.chosen, beta * pairs.rejected))
