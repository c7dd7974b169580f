"""SDPO: the policy with feedback in its context is its own teacher."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    bounded_exp,
    mean_over_tokens,
    metric_total,
    zero_masked,
)
from jaxrl_reason.losses.distillation.gkd import check_counts


def sdpo_loss(
    divergence: ArrayLike,
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    has_teacher: ArrayLike | None = None,
    ratio_cap: float | jax.Array | None = 2.0,
) -> tuple[jax.Array, Metrics]:
    """SDPO: distils the policy conditioned on feedback into the policy without it.

    D_t compares pi(. | x, y_<t) with the self-teacher sg pi(. | x, feedback, y_<t),
    where the feedback is a successful response to the same prompt or a message of the
    environment; w_t = min(sg exp(logprobs - old_logprobs), ratio_cap); L = token_mean(w
    D) over the sequences that have a teacher. Self-distillation policy optimisation,
    arXiv 2601.20802, equation 1, where D is the reverse KL: `top_k_jsd` with beta = 1,
    the student's 100 likeliest tokens and a tail (appendix A.3). The teacher is a
    moving average of the policy (A.2). The cap of 2 is the default of the authors'
    repository and of TRL; the paper has PPO's clip, and caps only the weight between
    trainer and sampler (equations 13 and 14). SDFT, arXiv 2601.19897, not read, has a
    demonstration as feedback.

    Args:
      divergence: [B, T] of `top_k_jsd`, `generalized_jsd` or `chunked_jsd`,
        differentiable; what it holds where the mask is 0 does not matter.
      logprobs: [B, T] of the policy for the sampled tokens; only the weight reads it,
        as a constant.
      old_logprobs: [B, T] of the policy that sampled.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch: of `mask & has_teacher[:, None]`
        to average over the tokens that are distilled.
      has_teacher: [B] bool or 0/1, sequences with feedback; all if left out.
      ratio_cap: the largest weight, > 0; None for weights of 1.

    Returns:
      The scalar, and as metric the pair `teacher_divergence`, over tokens that have a
      teacher.

    Raises:
      ValueError: shapes differ, counts are not of `batch_counts`, or the cap is <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, sdpo_loss
      >>> new, old = jnp.log(jnp.array([[[0.9, 0.2]], [[0.3, 0.2]]]))
      >>> divergence, mask = jnp.array([[0.5, 0.25]]), jnp.ones((1, 2))
      >>> loss, _ = sdpo_loss(divergence, new, old, mask, batch_counts(mask))
      >>> round(float(loss), 4)  # weights 2 and 1
      0.625
    """
    check_counts(counts)
    divergence, mask = _checks.floating("divergence", divergence), _checks.as_bool(mask)
    new = jax.lax.stop_gradient(_checks.floating("logprobs", logprobs))
    old = jax.lax.stop_gradient(_checks.floating("old_logprobs", old_logprobs))
    _checks.same_shape(
        2, divergence=divergence, logprobs=new, old_logprobs=old, mask=mask
    )
    if has_teacher is not None:
        taught = _checks.as_bool(has_teacher)
        mask &= _checks.per_row("has_teacher", taught, mask)
    divergence = zero_masked(divergence, mask)
    metrics = {"teacher_divergence": metric_total(divergence, mask)}
    if ratio_cap is not None:
        _checks.number("ratio_cap", ratio_cap, above=0, finite=False)
        ratio = bounded_exp(zero_masked(new - old, mask))
        divergence = jnp.minimum(ratio, ratio_cap) * divergence
    return mean_over_tokens(divergence, mask, counts), metrics
