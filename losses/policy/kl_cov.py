"""KL-Cov: a penalty on the few tokens that lower the entropy most.

Entropy falls mainly through tokens of high covariance of log-prob and advantage
(arXiv 2505.22617). They are chosen once, with the whole mini-batch (`kl_cov_tokens`),
and the loss of each micro-batch gets its part as `selected`; chosen inside a
micro-batch they would depend on how the mini-batch is split. `clip_cov` of the same
paper has its own module.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    Metrics,
    accurate_sum,
    bounded_exp,
    mean_over_tokens,
    metric_total,
    number_of_tokens,
    top_tokens,
    zero_masked,
)
from jaxrl_reason.losses._policy import policy_batch, ratio_metrics, total_loss


def token_covariance(
    logprobs: ArrayLike, advantages: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """Each token's part of the covariance of log-prob and advantage.

    cov_t = (A_t - mean(A)) (logprobs_t - mean(logprobs)), means over the unmasked
    tokens of all rows given. arXiv 2505.22617. verl takes the means over a
    micro-batch; pass the mini-batch.

    Args:
      logprobs: [B, T] of the policy; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_covariance
      >>> logprobs, advantages = jnp.array([[-1.0, -3.0]]), jnp.array([[2.0, 0.0]])
      >>> print(token_covariance(logprobs, advantages, jnp.ones((1, 2))))
      [[1. 1.]]
    """
    logprobs, mask = _checks.floating("logprobs", logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    advantages = _checks.constant("advantages", advantages)
    advantages = _checks.broadcast_to_tokens("advantages", advantages, mask)
    return covariance_terms(zero_masked(logprobs, mask), advantages, mask)


def kl_cov_tokens(
    logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-3,
) -> jax.Array:
    """The tokens of highest covariance, which KL-Cov penalises.

    The max(1, floor(fraction N)) unmasked tokens of highest `token_covariance`, N the
    unmasked tokens of the mini-batch. arXiv 2505.22617: 2e-3 for 7B, 2e-4 for 32B.
    Exactly that number is chosen; of equals the earlier one.

    Args:
      logprobs: [B, T] of the policy, the whole mini-batch; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the unmasked tokens, in (0, 1].

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: shapes differ, or `fraction` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_cov_tokens
      >>> logprobs, a = jnp.array([[-1.0, -3.0, -1.0]]), jnp.array([[2.0, 0.0, 1.0]])
      >>> print(kl_cov_tokens(logprobs, a, jnp.ones((1, 3)), fraction=0.4))
      [[False  True False]]
    """
    covariance = token_covariance(logprobs, advantages, mask)
    return _highest(covariance, _checks.as_bool(mask), fraction)


def kl_cov(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    fraction: float | jax.Array = 2e-3,
    coef: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
) -> jax.Array:
    """KL-Cov: no clip, and a penalty on the tokens of highest covariance.

    rho = exp(logprobs - old_logprobs), l = -A rho, plus
    coef |logprobs - old_logprobs| on the selected tokens. arXiv 2505.22617: fraction
    2e-3 (7B) or 2e-4 (32B), coef 1. The penalty has no gradient at ratio 1, where |.|
    has gradient 0 in the paper's code and 1 in plain JAX: the first update of a rollout
    is REINFORCE's.

    Public libraries differ: verl chooses inside each micro-batch; its coefficient is
    1.0 in the code, 0.1 in the settings and 1 in the recipe.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] at the start of the update; a constant.
      advantages: [B, T] or [B]; a constant.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      fraction: of the unmasked tokens, in (0, 1]; not used where `selected` is given.
      coef: coefficient of the penalty, >= 0.
      selected: [B, T] bool or 0/1, this part of what `kl_cov_tokens` gave for the whole
        mini-batch. If left out, they are chosen from the rows given, which must then be
        the whole mini-batch.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import kl_cov
      >>> logprobs = jnp.array([[-1.0, -3.0]])
      >>> a, mask, chosen = jnp.array([2.0]), jnp.ones((1, 2)), jnp.array([[0, 1]])
      >>> old = logprobs.at[0, 1].add(-1.0)
      >>> tokens = kl_cov(logprobs, old, a, mask, selected=chosen)
      >>> [round(x, 4) for x in tokens[0].tolist()]  # -2 and 1 - 2 e
      [-2.0, -4.4366]
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask)
    _checks.number("coef", coef, at_least=0)
    if selected is None:
        covariance = covariance_terms(batch.logprobs, batch.advantages, batch.mask)
        selected = _highest(covariance, batch.mask, fraction)
    chosen = selected_tokens(selected, batch.mask)
    penalty = zero_masked(_distance(batch.log_ratio), chosen)
    loss = -batch.advantages * bounded_exp(batch.log_ratio) + coef * penalty
    return zero_masked(loss, batch.mask)


def kl_cov_loss(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    counts: Counts,
    *,
    fraction: float | jax.Array = 2e-3,
    coef: float | jax.Array = 1.0,
    selected: ArrayLike | None = None,
    ref_logprobs: ArrayLike | None = None,
    kl_coef: float | jax.Array = 0.0,
    kl_estimator: str = "k3",
    kl_gradient: str | None = None,
    entropy: ArrayLike | None = None,
    entropy_coef: float | jax.Array = 0.0,
    weights: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """KL-Cov: a penalty on the tokens of highest covariance, averaged over tokens.

    rho = exp(logprobs - old_logprobs), l = -A rho, plus coef |logprobs - old_logprobs|
    on the selected tokens; L = token_mean(w l), plus the optional terms, reduced
    likewise. arXiv 2505.22617: no clip, fraction 2e-3 (7B) or 2e-4 (32B), coef 1.
    Advantages: `grpo_advantages` with `group_signal` as filter.

    Args:
      logprobs, old_logprobs, mask: [B, T], as in `ppo_loss`.
      advantages: [B] or [B, T]; a constant.
      counts: `batch_counts` of the whole mini-batch.
      fraction: of the tokens, in (0, 1]; not used where `selected` is given.
      coef: weight of the penalty, >= 0.
      selected: [B, T], this part of what `kl_cov_tokens` gave for the mini-batch; left
        out, the rows given must be the whole mini-batch.
      ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights:
        the optional terms, see `ppo_loss`.

    Returns:
      The scalar and the metrics, as `ppo_loss`; the clip fractions are 0, as nothing is
      clipped. And `selected`, the fraction of the tokens selected.

    Raises:
      ValueError: as `ppo_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, kl_cov_loss
      >>> logprobs = old = jnp.array([[-0.5, -1.0], [-2.0, 0.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> advantages, counts = jnp.array([3.0, -1.5]), batch_counts(mask)
      >>> loss, metrics = kl_cov_loss(logprobs, old, advantages, mask, counts)
      >>> float(loss)
      -1.5
    """
    batch = policy_batch(logprobs, old_logprobs, advantages, mask, counts)
    terms = batch.optional_terms(
        ref_logprobs, kl_coef, kl_estimator, kl_gradient, entropy, entropy_coef, weights
    )
    _checks.number("coef", coef, at_least=0)
    if selected is None:
        covariance = covariance_terms(batch.logprobs, batch.advantages, batch.mask)
        selected = _highest(covariance, batch.mask, fraction)
    chosen = selected_tokens(selected, batch.mask)

    ratio = bounded_exp(batch.log_ratio)  # [B, T]
    penalty = zero_masked(_distance(batch.log_ratio), chosen)  # [B, T]
    objective = -batch.advantages * ratio + coef * penalty  # [B, T]
    metrics = {**ratio_metrics(batch), "selected": metric_total(chosen, batch.mask)}
    return total_loss(mean_over_tokens, objective, metrics, batch.mask, terms)


def covariance_terms(
    logprobs: jax.Array, advantages: jax.Array, mask: jax.Array
) -> jax.Array:
    """`token_covariance` on checked arrays."""
    # One log-prob of -inf must not take the mean, and so all tokens, with it.
    logprobs = jnp.maximum(jax.lax.stop_gradient(logprobs), -1e4)
    tokens = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
    centred = advantages - accurate_sum(advantages) / tokens
    return zero_masked(centred * (logprobs - accurate_sum(logprobs) / tokens), mask)


def _highest(
    covariance: jax.Array, mask: jax.Array, fraction: float | jax.Array
) -> jax.Array:
    """The tokens that are penalised."""
    _checks.number("fraction", fraction, above=0, at_most=1)
    return top_tokens(covariance, mask, number_of_tokens(fraction, mask))


def selected_tokens(selected: ArrayLike, mask: jax.Array) -> jax.Array:
    """The selected tokens inside the mask, as bool."""
    chosen = _checks.as_bool(selected)
    _checks.same_shape(2, selected=chosen, mask=mask)
    return chosen & mask


def _distance(log_ratio: jax.Array) -> jax.Array:
    """|log_ratio| with gradient 0 at 0."""
    return log_ratio * jax.lax.stop_gradient(jnp.sign(log_ratio))
