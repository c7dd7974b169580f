"""Objectives without a hard clip of the gradient: CISPO and SAPO.

PPO's clip takes the gradient of a token away. Here every token keeps one, of a bounded
size.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import bounded_exp, keep, policy_arrays


def cispo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    ratio_low: float | jax.Array = 0.0,
    ratio_high: float | jax.Array,
) -> jax.Array:
    """CISPO: REINFORCE weighed by the clipped ratio, which is a constant.

    w = sg(clip(exp(logprobs - old_logprobs), ratio_low, ratio_high)),
    l = -w A logprobs, so that dl / dlogprobs = -w A on every token. MiniMax-M1,
    arXiv 2506.13585, equations 4 and 5. The value tells nothing about progress. The
    paper has no lower bound and does not publish its upper one.

    Public libraries differ: the bounds here are those of the ratio itself, as TRL's
    `epsilon_high` (ScaleRL: 5.0); verl's bounds are 1 - clip_ratio_low and
    1 + clip_ratio_high.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      ratio_low: lowest weight, in [0, 1]; 0 for none.
      ratio_high: highest weight, >= 1: the ratio, not its distance from 1.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a bound is on the wrong side of 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import cispo
      >>> logprobs, old = jnp.array([[-1.0, -2.0]]), jnp.array([[-3.0, -2.0]])
      >>> mask, a = jnp.ones((1, 2)), jnp.array([1.0])
      >>> print(cispo(logprobs, old, a, mask, ratio_high=5.0))  # weights 5 and 1
      [[5. 2.]]
    """
    check_ratio_bounds(ratio_low, ratio_high)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    weight = jnp.clip(bounded_exp(log_ratio), ratio_low, ratio_high)
    logprobs = keep(_checks.floating("logprobs", logprobs), live)
    return keep(-jax.lax.stop_gradient(weight) * advantages * logprobs, live)


def sapo(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    tau_positive: float | jax.Array = 1.0,
    tau_negative: float | jax.Array = 1.05,
) -> jax.Array:
    """SAPO: a smooth gate in place of the clip.

    rho = exp(logprobs - old_logprobs), tau = tau_positive where A > 0, else
    tau_negative, l = -A (4 / tau) sigmoid(tau (rho - 1)). arXiv 2511.20347. The
    gradient is -A rho w with w = 4 p (1 - p), p = sigmoid(tau (rho - 1)): 1 at ratio 1,
    smaller on both sides. At ratio 1 the value is -2 A / tau and not -A: it does not
    compare with PPO's. The paper's reduction is `sequence_mean`.

    Public libraries: verl and TRL compute the same.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      tau_positive: > 0; how fast the gate closes where A > 0.
      tau_negative: > 0; likewise elsewhere. The paper's is the larger.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a temperature is not > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import sapo
      >>> same, mask = jnp.array([[-1.0, -2.0]]), jnp.ones((1, 2))
      >>> print(sapo(same, same, jnp.array([1.0]), mask))
      [[-2. -2.]]
    """
    _checks.positive("tau_positive", tau_positive)
    _checks.positive("tau_negative", tau_negative)
    log_ratio, advantages, live = policy_arrays(
        logprobs, old_logprobs, advantages, mask
    )
    tau, opening, _ = gate(log_ratio, advantages, tau_positive, tau_negative)
    return keep(-advantages * (4.0 / tau) * opening, live)


def gate(
    log_ratio: jax.Array,
    advantages: jax.Array,
    tau_positive: float | jax.Array,
    tau_negative: float | jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """SAPO's tau of each token, p = sigmoid(tau (rho - 1)) and 4 p (1 - p), [B, T]."""
    tau = jnp.where(advantages > 0, tau_positive, tau_negative)
    z = tau * (bounded_exp(log_ratio) - 1.0)
    # The smaller of p and 1 - p keeps its digits, and with it the slope p (1 - p).
    small = jax.nn.sigmoid(jnp.where(z > 0, -z, z))
    weight = jax.lax.stop_gradient(4.0 * small * (1.0 - small))
    return tau, jnp.where(z > 0, 1.0 - small, small), weight


def check_ratio_bounds(
    ratio_low: float | jax.Array, ratio_high: float | jax.Array
) -> None:
    """Refuses distances from 1 where ratios are asked for."""
    _checks.unit_interval("ratio_low", ratio_low)
    _checks.setting(
        "ratio_high", ratio_high, "finite and >= 1", lambda x: 1 <= x < math.inf
    )
