"""Estimators of KL(policy || reference) from the log-probs of sampled tokens.

With d = log pi - log ref of a token sampled from pi (J. Schulman, "Approximating KL
divergence"), on policy:

  name  value            expected value     expected gradient as a loss
  k1    d                KL(pi || ref)      0
  k2    d^2 / 2          biased             that of KL(pi || ref)
  k3    exp(-d) - 1 + d  KL(pi || ref)      that of KL(ref || pi)
  abs   |d|              biased             that of E |d| with the samples held

Of a token sampled from an older policy, rho = pi / old times k3 has the expected value
KL(pi || ref) and its gradient: "k3_ratio" and, with one ratio per response,
"k3_sequence_ratio".

The form of the value and the form of the gradient are two choices: `kl_penalty` takes
both.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import bounded_exp, k3, row_means, zero_masked
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
    """Half the squared log-ratio: biased in value, unbiased in gradient.

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


def kl_abs(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    """The absolute log-ratio: biased, and never negative.

    |log pi - log ref|; verl's and SkyRL's "abs". As a loss each token has a gradient of
    the same size, +-1, except one whose log-probs agree, which has none.

    Args:
      logprobs: of the policy, any shape.
      ref_logprobs: of the reference, the same shape; a constant.

    Returns:
      float32 >= 0, the same shape.

    Raises:
      ValueError: shapes differ, or an array is not of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_abs
      >>> print(kl_abs(jnp.array([-1.5]), jnp.array([-1.0])))
      [0.5]
    """
    return _abs(_difference(logprobs, ref_logprobs))


def kl_penalty(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    estimator: str = "k3",
    gradient: str | None = None,
    old_logprobs: ArrayLike | None = None,
) -> jax.Array:
    """Per-token KL to the reference, with value and gradient chosen separately.

    l = k_value, or with `gradient`: l = k_gradient - sg(k_gradient) + sg(k_value),
    which has the value of one estimator and the gradient of the other (verl's "k1+" and
    "k3+" are `gradient="k2"`).

    "k3_ratio": rho k3, rho = pi / old, which is unbiased in value and gradient for
    tokens that the old policy sampled. DeepSeek-V3.2, arXiv 2512.02556, section 3.1
    ("unbiased KL estimate"); Tang and Munos, arXiv 2506.09477 (read in NeMo-RL's use of
    it), for why the ratio must be differentiated even where it is 1. Its gradient is
    rho d, that of k2 weighted by the ratio, and computed so: in the sum of the two
    parts k3 would cancel. "k3_sequence_ratio": s_i k3, s_i = exp(mean_t log rho), one
    per row and differentiated as well: TRL's at importance_sampling_level "sequence".

    Args:
      logprobs: [B, T] of the policy being trained.
      ref_logprobs: [B, T] of the reference; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      estimator: "k1", "k2", "k3", "abs", "k3_ratio" or "k3_sequence_ratio": the value.
      gradient: one of the same; the estimator's own if left out.
      old_logprobs: [B, T] of the policy that sampled, for the ratio; a constant. Only
        the last two need it; the second of them takes a row as a whole response.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, an estimator's name is unknown, or one with a ratio has
        no `old_logprobs`.

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
    _checks.one_of("estimator", estimator, _NAMES)
    gradient = estimator if gradient is None else gradient
    _checks.one_of("gradient", gradient, _NAMES)
    logprobs = _checks.floating("logprobs", logprobs)
    ref, mask = _reference(ref_logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, ref_logprobs=ref, mask=mask)
    # Finite, so that an estimate less itself is 0.
    d = jnp.clip(zero_masked(logprobs - ref, mask), -_FARTHEST, _FARTHEST)
    log_ratio = jnp.zeros_like(d)
    for name in (estimator, gradient):
        if name in _WITH_RATIO:
            log_ratio = _log_ratio(name, logprobs, old_logprobs, mask)
    value = _estimate(estimator, d, log_ratio, mask)
    if gradient == estimator:
        return value
    return _with_slope(value, _estimate(gradient, d, log_ratio, mask))


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
    arXiv 2501.03262. k1 is the right estimator here: the reward is not differentiated,
    and -d weights grad log pi as in grad KL(pi || ref).

    Args:
      rewards: [B, T] token rewards, or [B] outcome rewards, put on each row's
        last unmasked token.
      logprobs: [B, T] of the policy that sampled (the old policy).
      ref_logprobs: [B, T] of the reference.
      mask: [B, T] bool or 0/1.
      coef: coefficient of the penalty, >= 0.
      estimator: "k1", "k2", "k3" or "abs".

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
    _checks.number("coef", coef, at_least=0)
    mask, rewards = _checks.as_bool(mask), _checks.constant("rewards", rewards)
    penalty = kl_penalty(logprobs, ref_logprobs, mask, estimator=estimator)
    if rewards.ndim == 1:
        rewards = rewards_at_end(rewards, mask)
    rewards = _checks.broadcast_to_tokens("rewards", rewards, mask)
    return jax.lax.stop_gradient(rewards - coef * penalty)


_FARTHEST = 1e15  # its square is finite


def _reference(ref_logprobs: ArrayLike) -> jax.Array:
    return jax.lax.stop_gradient(_checks.floating("ref_logprobs", ref_logprobs))


def _difference(logprobs: ArrayLike, ref_logprobs: ArrayLike) -> jax.Array:
    logprobs = _checks.floating("logprobs", logprobs)
    ref = _reference(ref_logprobs)
    _checks.same_shape(logprobs.ndim, logprobs=logprobs, ref_logprobs=ref)
    return logprobs - ref


def _log_ratio(
    estimator: str, logprobs: jax.Array, old_logprobs: ArrayLike | None, mask: jax.Array
) -> jax.Array:
    if old_logprobs is None:
        raise ValueError(f"old_logprobs must be given for {estimator!r}, got None")
    old = jax.lax.stop_gradient(_checks.floating("old_logprobs", old_logprobs))
    _checks.same_shape(2, old_logprobs=old, mask=mask)
    return zero_masked(logprobs - old, mask)


def _with_slope(value: jax.Array, slope: jax.Array) -> jax.Array:
    """The value of the first, the gradient of the second."""
    return jax.lax.stop_gradient(value) + (slope - jax.lax.stop_gradient(slope))


def _k1(d: jax.Array) -> jax.Array:
    return d


def _k2(d: jax.Array) -> jax.Array:
    return 0.5 * jnp.square(d)


def _abs(d: jax.Array) -> jax.Array:
    """|d| with a gradient of 0 at 0, where jnp.abs has 1."""
    return jax.lax.stop_gradient(jnp.sign(d)) * d


_ESTIMATORS = {"k1": _k1, "k2": _k2, "k3": k3, "abs": _abs}
_WITH_RATIO = ("k3_ratio", "k3_sequence_ratio")
_NAMES = (*_ESTIMATORS, *_WITH_RATIO)


def _estimate(
    name: str, d: jax.Array, log_ratio: jax.Array, mask: jax.Array
) -> jax.Array:
    """[B, T]: an estimator of d = log pi - log ref, with pi's ratio to the old one."""
    if name == "k3_ratio":
        ratio = jax.lax.stop_gradient(bounded_exp(log_ratio))
        return _with_slope(ratio * k3(d), ratio * _k2(d))
    if name == "k3_sequence_ratio":
        return bounded_exp(row_means(log_ratio, mask))[:, None] * k3(d)
    return _ESTIMATORS[name](d)
