"""Coefficients that follow a measurement, updated once per rollout batch; no state.

The coefficient is part of the training state, so that a resumed run continues with it
and an evaluation cannot change it.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks


def adaptive_kl_update(
    coef: ArrayLike,
    kl: ArrayLike,
    *,
    target: float | jax.Array,
    horizon: float | jax.Array,
    num_samples: float | jax.Array,
) -> jax.Array:
    """Adjusts the coefficient of a KL penalty so that the KL approaches a target.

    coef' = coef (1 + clip(kl / target - 1, -0.2, 0.2) num_samples / horizon), once per
    rollout batch. Ziegler et al., arXiv 1909.08593, where the horizon counts samples.
    verl: a fixed 0.001 by default; its adaptive controller has the target 0.1 and the
    same horizon.

    Args:
      coef: [] the coefficient of this batch.
      kl: [] measured: the mean over sequences of the token mean of the estimator,
        `sequence_mean(kl_penalty(...))` of the whole batch.
      target: KL, finite and > 0.
      horizon: samples, finite and > 0.
      num_samples: sequences of this batch, finite and > 0.

    Returns:
      [] float32 without gradient, the coefficient of the next batch. The factor is
      within 1 +- 0.2 num_samples / horizon. A nan `kl` makes it nan.

    Raises:
      ValueError: a setting is out of its range, or `coef` and `kl` differ in shape.

    Example:
      >>> from jaxrl_reason.losses import adaptive_kl_update
      >>> coef = adaptive_kl_update(
      ...     0.2, 9.0, target=6.0, horizon=10000, num_samples=256
      ... )
      >>> round(float(coef), 6)
      0.201024
    """
    _checks.number("target", target, above=0)
    _checks.number("horizon", horizon, above=0)
    _checks.number("num_samples", num_samples, above=0)
    coef, kl = _checks.constant("coef", coef), _checks.constant("kl", kl)
    _checks.same_shape(coef.ndim, coef=coef, kl=kl)
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return coef * (1.0 + error * num_samples / horizon)


def adaptive_entropy_update(
    coef: ArrayLike,
    entropy: ArrayLike,
    *,
    target: float | jax.Array = 0.2,
    step: float | jax.Array = 1e-4,
    low: float | jax.Array = 0.0,
    high: float | jax.Array = 0.005,
    inclusive: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Raises the weight of the entropy bonus while the entropy is below a target.

    c' = clip(c + step if e < target else c - step, low, high);
    alpha = c' if e < target else 0. Skywork-OR1 (MAGIC), arXiv 2505.22312, after the
    released controller. One step of lag: `entropy` is that of the batch just
    trained on, alpha is the `entropy_coef` of the next one. The first batch uses 0, or
    the value that you start with.

    TRL is `inclusive=True`, step 0.005, low 0, high 1, with the same lag; its
    documented example has the target 5 and starts at 0.01. The closed form given in
    notes on the paper, alpha_k = c_k [e_k <= target], has no lag and needs the entropy
    before the loss.

    Args:
      coef: [] the state c; 0 at the start.
      entropy: [] measured on the batch, in nats per token: the released code takes
        -mean(old_logprobs), the loss the entropy of the whole vocabulary.
      target: finite and > 0.
      step: finite and >= 0.
      low: the smallest c, finite.
      high: the largest c, finite and >= `low`.
      inclusive: an entropy equal to the target counts as below it.

    Returns:
      (c', alpha), [] float32 without gradient. A nan `entropy` makes both nan.

    Raises:
      ValueError: a setting is out of its range, or the shapes differ.

    Example:
      >>> from jaxrl_reason.losses import adaptive_entropy_update
      >>> coef, alpha = adaptive_entropy_update(0.0, 0.18)
      >>> round(float(coef), 6), round(float(alpha), 6)
      (0.0001, 0.0001)
      >>> coef, alpha = adaptive_entropy_update(coef, 0.35)
      >>> round(float(coef), 6), round(float(alpha), 6)
      (0.0, 0.0)
    """
    _checks.number("target", target, above=0)
    _checks.number("step", step, at_least=0)
    _checks.number("low", low)
    floor = -math.inf if isinstance(low, jax.core.Tracer) else float(low)
    _checks.number("high", high, at_least=floor, rule=f"finite and >= low = {floor:g}")
    coef = _checks.constant("coef", coef)
    entropy = _checks.constant("entropy", entropy)
    _checks.same_shape(coef.ndim, coef=coef, entropy=entropy)
    below = entropy <= target if inclusive else entropy < target
    moved = jnp.clip(jnp.where(below, coef + step, coef - step), low, high)
    # A comparison with nan is False, as for a healthy entropy.
    moved = jnp.where(jnp.isnan(entropy), jnp.nan, moved)
    return moved, jnp.where(below | jnp.isnan(entropy), moved, 0.0)
