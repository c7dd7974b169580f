"""What the published policy losses share: their arrays, ratio, clip, metrics and terms.

A loss checks its arrays once, with `policy_batch`, `optional_terms` and `check_clip`;
what follows is the formula, on arrays that are [B, T], float32 and 0 outside the mask.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    accurate_sum,
    bounded_exp,
    k3,
)
from jaxrl_reason.losses.kl import kl_penalty

Reduction = Callable[[jax.Array, jax.Array, Counts], jax.Array]


class OptionalTerms(NamedTuple):
    """What a policy loss may add to its objective; None where a term is absent."""

    counts: Counts  # denominators of the mini-batch
    weights: jax.Array | None  # [B, T] constants w, which multiply the objective
    kl: jax.Array | None  # [B, T] to the reference
    kl_coef: float | jax.Array
    entropy: jax.Array | None  # [B, T] of the policy
    entropy_coef: float | jax.Array | None  # None: the entropy is only a metric


class PolicyBatch(NamedTuple):
    """The arrays of a policy loss, checked; 0 outside the mask."""

    logprobs: jax.Array  # [B, T] differentiable
    log_ratio: jax.Array  # [B, T] logprobs - old_logprobs, differentiable in the first
    advantages: jax.Array  # [B, T] constants
    mask: jax.Array  # [B, T] bool
    counts: Counts | None  # of the mini-batch; None for an unreduced objective

    def optional_terms(
        self,
        ref_logprobs: ArrayLike | None,
        kl_coef: float | jax.Array,
        kl_estimator: str,
        kl_gradient: str | None,
        entropy: ArrayLike | None,
        entropy_coef: float | jax.Array,
        weights: ArrayLike | None,
    ) -> OptionalTerms:
        """Checks the arguments that all policy losses share, and the counts.

        A term whose coefficient is a plain 0 is not computed.
        """
        if not isinstance(self.counts, Counts):
            raise ValueError(
                f"counts must come from batch_counts, got {type(self.counts).__name__}"
            )
        if weights is not None:
            weights = _checks.constant("weights", weights)
            weights = _checks.broadcast_to_tokens("weights", weights, self.mask)
        if entropy is not None:
            entropy = _checks.floating("entropy", entropy)
            _checks.same_shape(2, entropy=entropy, mask=self.mask)
        kl, bonus = None, None
        if not (isinstance(kl_coef, int | float) and kl_coef == 0):
            _checks.number("kl_coef", kl_coef, at_least=0)
            if not _checks.static_zero(kl_coef):
                kl = self._kl(ref_logprobs, kl_coef, kl_estimator, kl_gradient)
        if not (isinstance(entropy_coef, int | float) and entropy_coef == 0):
            _checks.number("entropy_coef", entropy_coef)
            if not _checks.static_zero(entropy_coef):
                bonus = entropy_coef
        if bonus is not None and entropy is None:
            raise ValueError(f"entropy_coef must be 0 without entropy, got {bonus}")
        return OptionalTerms(self.counts, weights, kl, kl_coef, entropy, bonus)

    def _kl(
        self,
        ref_logprobs: ArrayLike | None,
        kl_coef: float | jax.Array,
        estimator: str,
        gradient: str | None,
    ) -> jax.Array:
        if ref_logprobs is None:
            raise ValueError(f"kl_coef must be 0 without ref_logprobs, got {kl_coef}")
        return kl_penalty(
            self.logprobs,
            ref_logprobs,
            self.mask,
            estimator=estimator,
            gradient=gradient,
            old_logprobs=self.logprobs - self.log_ratio,
        )


def policy_batch(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts | None = None,
) -> PolicyBatch:
    """Checks the arrays that every policy loss and objective takes."""
    new, old = jnp.asarray(logprobs), jnp.asarray(old_logprobs)
    a = jnp.asarray(advantages)
    mask = jnp.asarray(mask)
    # Checked on the host where it is known: inside jit, JAX traces operations on known
    # arrays too.
    soft, known = False, not isinstance(mask, jax.core.Tracer)
    if known and mask.dtype != bool and mask.is_fully_addressable:
        values = jax.device_get(mask)
        soft = bool(((values != 0) & (values != 1)).any())
    if soft or not (
        jnp.issubdtype(new.dtype, jnp.floating)
        and jnp.issubdtype(old.dtype, jnp.floating)
        and not jnp.issubdtype(a.dtype, jnp.complexfloating)
        and mask.ndim == 2
        and new.shape == old.shape == mask.shape
        and a.shape in (mask.shape, mask.shape[:1])
    ):
        _refuse(new, old, a, mask)
    mask = mask.astype(bool)
    # The shape decides, never broadcasting: a [B] array stays one number per sequence
    # when T happens to equal B.
    if a.ndim == 1:
        a = jnp.broadcast_to(a[:, None], mask.shape)
    wide = jnp.promote_types(new.dtype, jnp.float32)  # float64 stays float64
    new, old = new.astype(wide), jax.lax.stop_gradient(old.astype(wide))
    return PolicyBatch(
        logprobs=jnp.where(mask, new, 0.0),
        # Finite, so that means over a sequence are.
        log_ratio=jnp.clip(jnp.where(mask, new - old, 0.0), -1e30, 1e30),
        advantages=jnp.where(mask, jax.lax.stop_gradient(a.astype(wide)), 0.0),
        mask=mask,
        counts=counts,
    )


def _refuse(new: jax.Array, old: jax.Array, a: jax.Array, mask: jax.Array) -> None:
    """Names the array that does not fit: one of these checks raises."""
    mask = _checks.as_bool(mask)
    _checks.floating("logprobs", new)
    _checks.floating("old_logprobs", old)
    _checks.same_shape(2, logprobs=new, old_logprobs=old, mask=mask)
    _checks.broadcast_to_tokens("advantages", _checks.constant("advantages", a), mask)


def check_clip(
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
    dual_clip: float | jax.Array | None = None,
) -> None:
    """Raises for bounds on the wrong side of 1; a traced bound passes."""
    bounds = {"clip_low": clip_low, "clip_high": clip_high}
    if dual_clip is not None:
        bounds["dual_clip"] = dual_clip
    for name, bound in bounds.items():
        if isinstance(bound, jax.core.Tracer):
            continue
        try:
            x = math.nan if isinstance(bound, str) else float(bound)
        except (TypeError, ValueError):
            x = math.nan
        if name == "dual_clip" and not 1 < x < math.inf:
            raise ValueError(f"dual_clip must be finite and > 1, got {bound!r}")
        if not 0 <= x < math.inf:
            raise ValueError(f"{name} must be finite and >= 0, got {bound!r}")
        if name == "clip_high" and 1 < x < 2:
            raise ValueError(
                f"clip_high must be the distance of the bound from 1, so {x - 1:.3g} "
                f"for a bound of {x:g}, got {bound!r}"
            )


def clip_ratio(
    ratio: jax.Array,
    advantages: jax.Array,
    clip_low: float | jax.Array,
    clip_high: float | jax.Array,
    dual_clip: float | jax.Array | None = None,
) -> jax.Array:
    """The ratio that the pessimistic objective multiplies A by.

    max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)) = -A clip_ratio: for A >= 0
    only the upper bound can act, for A < 0 only the lower one and the dual clip.
    Comparisons keep the full gradient where ratio and bound are equal.
    """
    low, high = 1.0 - clip_low, 1.0 + clip_high
    below = jnp.where(ratio > high, high, ratio)
    above = jnp.where(ratio < low, low, ratio)
    if dual_clip is not None:
        above = jnp.where(above > dual_clip, dual_clip, above)
    return jnp.where(advantages < 0, above, below)


def ratio_metrics(
    batch: PolicyBatch,
    clip_low: float | jax.Array = math.inf,
    clip_high: float | jax.Array = math.inf,
    dual_clip: float | jax.Array | None = None,
) -> Metrics:
    """The public `policy_metrics`; with no bounds the clip fractions are 0."""
    log_ratio, a = jax.lax.stop_gradient(batch.log_ratio), batch.advantages
    ratio = bounded_exp(log_ratio)
    values = {
        "ratio": ratio,
        "clip_frac_low": (a < 0) & (ratio < 1.0 - clip_low),
        "clip_frac_high": (a > 0) & (ratio > 1.0 + clip_high),
        "approx_kl_k1": -log_ratio,
        "approx_kl_k3": k3(-log_ratio),
    }
    if dual_clip is not None:
        values["clip_frac_dual"] = (a < 0) & (ratio > dual_clip)
    tokens = jnp.sum(batch.mask, dtype=jnp.float32)
    metrics = {}
    for name, x in values.items():
        total = jnp.sum(jnp.where(batch.mask, x.astype(ratio.dtype), 0.0))
        metrics[name] = (total, tokens)
    return metrics


def total_loss(
    reduction: Reduction,
    objective: jax.Array,
    metrics: Metrics,
    mask: jax.Array,
    terms: OptionalTerms,
) -> tuple[jax.Array, Metrics]:
    """L = R(w l) + kl_coef R(KL) - entropy_coef R(H), R the reduction.

    The metrics gain `kl` where it is used and `entropy` where it is given.
    """
    counts = terms.counts
    if terms.weights is not None:
        objective = objective * terms.weights
    loss = reduction(objective, mask, counts)
    if terms.kl is not None:
        loss = loss + terms.kl_coef * reduction(terms.kl, mask, counts)
    if terms.entropy is not None and terms.entropy_coef is not None:
        loss = loss - terms.entropy_coef * reduction(terms.entropy, mask, counts)
    tokens = jnp.sum(mask, dtype=jnp.float32)
    for name, x in {"kl": terms.kl, "entropy": terms.entropy}.items():
        if x is not None:
            x = jnp.where(mask, jax.lax.stop_gradient(x), 0.0)
            metrics = {**metrics, name: (accurate_sum(x), tokens)}
    return loss, metrics
