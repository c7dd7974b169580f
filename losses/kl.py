"""Estimators of KL(policy || reference) from the log-probs of sampled tokens.

With d = log pi - log ref of a token sampled from pi (J. Schulman, "Approximating KL
divergence"), on policy:

  name  value            expected value     expected gradient as a loss
  k1    d                KL(pi || ref)      0
  k2    d^2 / 2          biased             that of KL(pi || ref)
  k3    exp(-d) - 1 + d  KL(pi || ref)      that of KL(ref || pi)

The form of the value and the form of the gradient are two choices: `kl_penalty` takes
both.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import k3, zero_masked
from jaxrl_reason.losses.returns import rewards_at_end


def kl_k1(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    """The log-ratio itself: unbiased, of high variance, may be negative.

    k1 = log pi - log ref. As a loss its expected gradient on policy is 0: use it in the
    reward, or as the value of a `kl_penalty` with another gradient.

    Args:
      logprobs: of the policy, any shape.
      ref_logprobs: of the reference, the same shape; a constant.

    Returns:
      float32, the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_k1
      >>> print(kl_k1(jnp.array([-0.5]), jnp.array([-1.0])))
      [0.5]
    """
    return _difference(logprobs, ref_logprobs)


def kl_k2(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    """Half the squared log-ratio: biased in value, right in gradient.

    k2 = (log pi - log ref)^2 / 2. Its expected gradient on policy is that of
    KL(pi || ref).

    Args:
      logprobs: of the policy, any shape.
      ref_logprobs: of the reference, the same shape; a constant.

    Returns:
      float32 >= 0, the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_k2
      >>> print(kl_k2(jnp.array([-0.5]), jnp.array([-1.0])))
      [0.125]
    """
    return _k2(_difference(logprobs, ref_logprobs))


def kl_k3(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    """Unbiased and never negative: GRPO's penalty.

    k3 = exp(-d) - 1 + d, d = log pi - log ref. GRPO, arXiv 2402.03300, equation 4. Its
    expected gradient on policy is that of KL(ref || pi), the other direction. Computed
    without cancellation; below d = -20 the value stays and the gradient is 0.

    Args:
      logprobs: of the policy, any shape.
      ref_logprobs: of the reference, the same shape; a constant.

    Returns:
      float32 >= 0, the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_k3
      >>> print(kl_k3(jnp.array([-0.5]), jnp.array([-1.0])).round(4))
      [0.1065]
    """
    return k3(_difference(logprobs, ref_logprobs))


def kl_penalty(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    estimator: str = "k3",
    gradient: str | None = None,
) -> jax.Array:
    """Per-token KL to the reference, with value and gradient chosen apart.

    l = k_value, or with `gradient`: l = k_gradient - sg(k_gradient) + sg(k_value),
    which has the value of one estimator and the gradient of the other (verl's "k1+" and
    "k3+" are `gradient="k2"`).

    Args:
      logprobs: [B, T] of the policy being trained.
      ref_logprobs: [B, T] of the reference; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      estimator: "k1", "k2" or "k3": the value.
      gradient: "k1", "k2" or "k3"; the estimator's own if left out.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or an estimator's name is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_penalty
      >>> one, ref = jnp.array([[-0.5]]), jnp.array([[-1.0]])
      >>> def total(x):
      ...     mask = jnp.ones((1, 1))
      ...     return kl_penalty(x, ref, mask, estimator="k1", gradient="k2").sum()
      >>> float(total(one)), jax.grad(total)(one).tolist()
      (0.5, [[0.5]])
    """
    _checks.one_of("estimator", estimator, tuple(_ESTIMATORS))
    logprobs = _checks.floating("logprobs", logprobs)
    ref, mask = _reference(ref_logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, ref_logprobs=ref, mask=mask)
    d = zero_masked(logprobs - ref, mask)
    value = _ESTIMATORS[estimator](d)
    if gradient is None or gradient == estimator:
        return value
    _checks.one_of("gradient", gradient, tuple(_ESTIMATORS))
    slope = _ESTIMATORS[gradient](d)
    return jax.lax.stop_gradient(value) + (slope - jax.lax.stop_gradient(slope))


def kl_in_reward(
    rewards: ArrayLike,
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    coef: float | jax.Array,
    estimator: str = "k1",
) -> jax.Array:
    """Token rewards minus the KL of each token: the penalty as part of the reward.

    r_t = score_t - coef * k_t. Ziegler et al., arXiv 1909.08593; REINFORCE++,
    arXiv 2501.03262. k1 is the right estimator here: in the reward nothing is
    differentiated and -d weighs log pi as grad KL(pi || ref) asks for.

    Args:
      rewards: [B, T] token rewards, or [B] outcome rewards, put on each row's
        last unmasked token.
      logprobs: [B, T] of the policy that sampled (the old policy).
      ref_logprobs: [B, T] of the reference.
      mask: [B, T] bool or 0/1.
      coef: weight of the penalty, >= 0.
      estimator: "k1", "k2" or "k3".

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, `coef` < 0, or the estimator's name is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_in_reward
      >>> logprobs, ref = jnp.array([[-1.0, -1.0]]), jnp.array([[-1.5, -1.0]])
      >>> mask = jnp.ones((1, 2))
      >>> print(kl_in_reward(jnp.array([1.0]), logprobs, ref, mask, coef=0.2))
      [[-0.1  1. ]]
    """
    _checks.not_negative("coef", coef)
    mask, rewards = _checks.as_bool(mask), _checks.constant("rewards", rewards)
    penalty = kl_penalty(logprobs, ref_logprobs, mask, estimator=estimator)
    if rewards.ndim == 1:
        rewards = rewards_at_end(rewards, mask)
    rewards = _checks.broadcast_to_tokens("rewards", rewards, mask)
    return jax.lax.stop_gradient(rewards - coef * penalty)


def _reference(ref_logprobs: ArrayLike) -> jax.Array:
    return jax.lax.stop_gradient(_checks.floating("ref_logprobs", ref_logprobs))


def _difference(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    logprobs = _checks.floating("logprobs", logprobs)
    ref = _reference(ref_logprobs)
    _checks.same_shape(logprobs.ndim, logprobs=logprobs, ref_logprobs=ref)
    return logprobs - ref


def _k1(d: jax.Array) -> jax.Array:
    return d


def _k2(d: jax.Array) -> jax.Array:
    return 0.5 * jnp.square(d)


_ESTIMATORS = {"k1": _k1, "k2": _k2, "k3": k3}
