"""On-policy distillation: the student samples, a teacher scores every token."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    mean_over_tokens,
    metric_total,
    zero_masked,
)
from jaxrl_reason.losses.distillation.gkd import check_counts
from jaxrl_reason.losses.kl import kl_penalty


def distillation_advantages(
    old_logprobs: ArrayLike,
    teacher_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    coef: float | jax.Array = 1.0,
    outcome_advantages: ArrayLike | None = None,
) -> jax.Array:
    """A token's advantage: its log-prob under the teacher minus that of the student.

    A_t = coef (log pi_teacher(y_t) - log pi_old(y_t)) + A_outcome: minus the k1
    estimate of the reverse KL(pi || pi_teacher), without discount, so that a policy
    gradient with these advantages is one step down that KL. MiniLLM, arXiv 2306.08543,
    the single-step term of equation 3; with outcome advantages added, MiMo-V2-Flash,
    arXiv 2601.02780, equation 9, whose coefficient weights the outcome instead of the
    teacher. Not normalised: the size is the signal.

    Args:
      old_logprobs: [B, T] of the student that sampled, by the trainer.
      teacher_logprobs: [B, T] of the teacher for the student's tokens, in the same
        context and at the same temperature.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      coef: weight of the teacher, >= 0.
      outcome_advantages: [B] or [B, T], of `grpo_advantages` for example; none if left
        out.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `coef` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import distillation_advantages
      >>> old, teacher = jnp.array([[-1.0, -2.0]]), jnp.array([[-0.5, -4.0]])
      >>> print(distillation_advantages(old, teacher, jnp.ones((1, 2))))
      [[ 0.5 -2. ]]
    """
    _checks.number("coef", coef, at_least=0)
    mask = _checks.as_bool(mask)
    old = _checks.floating("old_logprobs", old_logprobs)
    teacher = _checks.floating("teacher_logprobs", teacher_logprobs)
    _checks.same_shape(2, old_logprobs=old, teacher_logprobs=teacher, mask=mask)
    advantages = coef * zero_masked(teacher - old, mask)
    if outcome_advantages is not None:
        outcome = _checks.constant("outcome_advantages", outcome_advantages)
        outcome = _checks.broadcast_to_tokens("outcome_advantages", outcome, mask)
        advantages = advantages + outcome
    return jax.lax.stop_gradient(advantages)


def select_teacher(
    teacher_logprobs: ArrayLike, teacher_ids: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """Each sequence's log-probs under the teacher of its domain.

    Several teachers, one per domain, teach one student: multi-teacher on-policy
    distillation of MiMo-V2-Flash, arXiv 2601.02780, equation 5.

    Args:
      teacher_logprobs: [K, B, T] of K teachers; a teacher's values for sequences of
        other teachers do not matter.
      teacher_ids: [B] int in [0, K).
      mask: [B, T] bool or 0/1.

    Returns:
      [B, T] float32 constants, zero outside the mask; nan for a sequence whose id is
      not in [0, K).

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import select_teacher
      >>> logprobs = jnp.array([[[-1.0], [-2.0]], [[-3.0], [-4.0]]])  # [K, B, T]
      >>> print(select_teacher(logprobs, jnp.array([1, 0]), jnp.ones((2, 1))))
      [[-3.]
       [-2.]]
    """
    logprobs = jax.lax.stop_gradient(
        _checks.floating("teacher_logprobs", teacher_logprobs)
    )
    ids, mask = _checks.integers("teacher_ids", teacher_ids), _checks.as_bool(mask)
    if logprobs.ndim != 3 or logprobs.shape[1:] != mask.shape:
        raise ValueError(
            f"teacher_logprobs must have shape [K, {', '.join(map(str, mask.shape))}] "
            f"around the mask's, got {list(logprobs.shape)}"
        )
    _checks.per_row("teacher_ids", ids, mask)
    chosen = jnp.full(mask.shape, jnp.nan, jnp.float32)
    for k in range(logprobs.shape[0]):
        chosen = jnp.where((ids == k)[:, None], logprobs[k], chosen)
    return zero_masked(chosen, mask)


def opd_loss(
    logprobs: ArrayLike,
    teacher_logprobs: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """On-policy distillation: the reverse KL of each sampled token to the teacher.

    d = logprobs - teacher_logprobs, L = token_mean(w l) where l has the value d and the
    gradient sg(d) grad logprobs: on policy unbiased estimates, token by token, of
    KL(pi || pi_teacher) and its gradient. MiniLLM, arXiv 2306.08543, the single-step
    term of equation 3; MiMo-V2-Flash, arXiv 2601.02780, equations 5 to 8, with a mean
    per response and `masked_importance_weights` between trainer and sampler as weights.
    The student of d is the policy being trained, so there is no old policy; to clip
    against one, use `distillation_advantages` and any policy loss.

    Args:
      logprobs: [B, T] of the student for tokens that it sampled.
      teacher_logprobs: [B, T] of the teacher for the same tokens, in the same context
        and at the same temperature; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      counts: `batch_counts` of the whole mini-batch.
      weights: [B] or [B, T] constants that multiply the objective; 1 if left out.

    Returns:
      The scalar, and as metric the pair `teacher_kl`, of d without weights.

    Raises:
      ValueError: shapes differ, or counts are not of `batch_counts`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, opd_loss
      >>> student, teacher = jnp.array([[-1.0, -2.0]]), jnp.array([[-0.5, -4.0]])
      >>> mask = jnp.ones((1, 2))
      >>> def loss(x):
      ...     return opd_loss(x, teacher, mask, batch_counts(mask))[0]
      >>> float(loss(student)), jax.grad(loss)(student).tolist()
      (0.75, [[-0.25, 1.0]])
    """
    check_counts(counts)
    mask = _checks.as_bool(mask)
    d = kl_penalty(logprobs, teacher_logprobs, mask, estimator="k1", gradient="k2")
    metrics = {"teacher_kl": metric_total(d, mask)}
    if weights is not None:
        weights = _checks.constant("weights", weights)
        d = d * _checks.broadcast_to_tokens("weights", weights, mask)
    return mean_over_tokens(d, mask, counts), metrics
