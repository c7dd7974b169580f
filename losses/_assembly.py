"""What compositions do after the objective: weights, optional terms, reduction."""

from collections.abc import Callable

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import spread
from jaxrl_reason.losses.kl import kl_penalty
from jaxrl_reason.losses.reductions import Counts
from jaxrl_reason.losses.surrogates import Metrics, masked_total

Reduction = Callable[[ArrayLike, ArrayLike, Counts], jax.Array]


def assemble(
    reduction: Reduction,
    objective: jax.Array,
    metrics: Metrics,
    logprobs: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    ref_logprobs: ArrayLike | None,
    kl_coef: float | jax.Array,
    kl_estimator: str,
    kl_gradient: str | None,
    entropy: ArrayLike | None,
    entropy_coef: float | jax.Array,
    weights: ArrayLike | None,
) -> tuple[jax.Array, Metrics]:
    """R(w l) + kl_coef R(KL) - entropy_coef R(H), R the reduction, with its metrics.

    A term whose coefficient is a plain 0 is not computed.
    """
    _checks.not_negative("kl_coef", kl_coef)
    _checks.finite("entropy_coef", entropy_coef)
    live = _checks.flags(mask)
    if weights is not None:
        weights = _checks.constant("weights", weights)
        objective = objective * spread("weights", weights, live)
    loss = reduction(objective, live, counts)
    if not _checks.static_zero(kl_coef):
        if ref_logprobs is None:
            raise ValueError(f"kl_coef must be 0 without ref_logprobs, got {kl_coef}")
        penalty = kl_penalty(
            logprobs, ref_logprobs, live, estimator=kl_estimator, gradient=kl_gradient
        )
        loss = loss + kl_coef * reduction(penalty, live, counts)
        metrics = {**metrics, "kl": masked_total(penalty, live)}
    if entropy is not None:
        entropy = _checks.floating("entropy", entropy)
        _checks.same_shape(2, entropy=entropy, mask=live)
        metrics = {**metrics, "entropy": masked_total(entropy, live)}
    if not _checks.static_zero(entropy_coef):
        if entropy is None:
            raise ValueError(
                f"entropy_coef must be 0 without entropy, got {entropy_coef}"
            )
        loss = loss - entropy_coef * reduction(entropy, live, counts)
    return loss, metrics
