"""What compositions share: the clipped surrogate, optional terms, the reduction."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypedDict, TypeVar, cast

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import spread
from jaxrl_reason.losses.kl import kl_penalty
from jaxrl_reason.losses.reductions import Counts
from jaxrl_reason.losses.surrogates import (
    Metrics,
    clipped_surrogate,
    masked_total,
    policy_metrics,
)

Reduction = Callable[[ArrayLike, ArrayLike, Counts], jax.Array]
Composition = TypeVar("Composition", bound=Callable[..., tuple[jax.Array, Metrics]])


class TermsButKlCoef(TypedDict, total=False):
    """The optional terms of a method that has a `kl_coef` of its own."""

    ref_logprobs: ArrayLike | None
    kl_estimator: str
    kl_gradient: str | None
    entropy: ArrayLike | None
    entropy_coef: float | jax.Array
    weights: ArrayLike | None


class OptionalTerms(TermsButKlCoef, total=False):
    """Keyword arguments of every published method, beside its own settings.

    L = R(w l) + kl_coef R(KL) - entropy_coef R(H), with l the method's objective and R
    its reduction. Each may be left out; a coefficient other than 0 needs its array.

    Args:
      ref_logprobs: [B, T] of the reference; a constant, needed for a KL term only.
      kl_coef: weight of the KL term, >= 0; with a plain 0 (the default, but for
        `grpo_loss`) the term is not computed.
      kl_estimator: "k1", "k2" or "k3" (the default), see `kl_penalty`.
      kl_gradient: likewise; the estimator's own if left out.
      entropy: [B, T] of the policy, for the metrics and the bonus.
      entropy_coef: weight of the entropy bonus, 0 if left out; may be negative.
      weights: [B, T] or [B] constants w that multiply the objective alone, a rollout
        correction say.
    """

    kl_coef: float | jax.Array


def takes_terms(composition: Composition) -> Composition:
    """For a composition that takes `**terms`: they stand in its signature.

    `inspect.signature` and `help` show them with their defaults, which are those of
    `assemble`, and a keyword that is no argument is refused in the method's name.
    """
    given = inspect.signature(composition)
    own = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
    terms = [
        p
        for p in inspect.signature(assemble).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in given.parameters
    ]
    signature = given.replace(parameters=own + terms)

    @functools.wraps(composition)
    def checked(*args: Any, **kwargs: Any) -> tuple[jax.Array, Metrics]:
        for name in kwargs.keys() - signature.parameters.keys():
            known = ", ".join(list(signature.parameters)[5:])
            raise TypeError(
                f"{composition.__name__}() got an unexpected keyword argument "
                f"{name!r}; its settings and optional terms are {known}"
            )
        return composition(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return cast(Composition, checked)


def clipped(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
    dual_clip: float | jax.Array | None,
) -> tuple[jax.Array, Metrics]:
    """The clipped surrogate and the metrics that belong to its bounds."""
    arrays = (logprobs, old_logprobs, advantages, mask)
    objective = clipped_surrogate(
        *arrays, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip
    )
    metrics = policy_metrics(
        *arrays, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip
    )
    return objective, metrics


def assemble(
    reduction: Reduction,
    objective: jax.Array,
    metrics: Metrics,
    logprobs: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """R(w l) + kl_coef R(KL) - entropy_coef R(H), R the reduction, with its metrics.

    The keyword arguments are `OptionalTerms`. A term whose coefficient is a plain 0 is
    not computed.
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
