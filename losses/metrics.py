"""What to monitor: ratios and clip fractions, the critic, sampler against trainer.

Sums over tokens come as (total, count) pairs: add both up over micro-batches and
devices, then divide once.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks, _policy
from jaxrl_reason.losses._math import (
    Metrics,
    accurate_sum,
    at_least_one,
    bounded_exp,
    k3,
    metric_total,
    moments,
    read_groups,
    share,
    statistics,
    zero_masked,
)

# Largest log-prob difference that enters a mean.
_FARTHEST = 1e4


def policy_metrics(
    logprobs: ArrayLike,
    old_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    clip_low: float | jax.Array = 0.2,
    clip_high: float | jax.Array = 0.2,
    dual_clip: float | jax.Array | None = None,
) -> Metrics:
    """Metrics of a clipped objective, as (total, count) pairs.

    Over unmasked tokens: `ratio` rho; `clip_frac_high` [A > 0 and rho > 1 + clip_high];
    `clip_frac_low` [A < 0 and rho < 1 - clip_low]; with a dual clip `clip_frac_dual`
    [A < 0 and rho > dual_clip]; and estimates of KL(old || new), with d = old - new:
    `approx_kl_k1` d, which may be negative, and `approx_kl_k3` exp(-d) - 1 + d.

    Args:
      logprobs: [B, T] of the policy being trained.
      old_logprobs: [B, T] of the policy at the start of the update.
      advantages: [B, T] or [B].
      mask: [B, T] bool or 0/1.
      clip_low: as given to the objective.
      clip_high: as given to the objective.
      dual_clip: as given to the objective.

    Returns:
      Name -> (total, count), float32 scalars without gradient; count is the number of
      unmasked tokens here. Add totals and counts over micro-batches and devices, then
      divide once.

    Raises:
      ValueError: shapes differ, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import policy_metrics
      >>> logprobs, old = jnp.log(jnp.array([[1.5, 0.5]])), jnp.zeros((1, 2))
      >>> mask = jnp.ones((1, 2))
      >>> metrics = policy_metrics(logprobs, old, jnp.array([1.0]), mask)
      >>> [float(x) for x in metrics["clip_frac_high"]]
      [1.0, 2.0]
    """
    batch = _policy.policy_batch(logprobs, old_logprobs, advantages, mask)
    _policy.check_clip(clip_low, clip_high, dual_clip)
    return _policy.ratio_metrics(batch, clip_low, clip_high, dual_clip)


def masked_total(x: ArrayLike, mask: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Sum over unmasked tokens and their number: one metric's (total, count) pair.

    (sum_it m_it x_it, sum_it m_it); total / count is the token mean, once both are
    added up over micro-batches and devices.

    Args:
      x: [B, T] numbers or bools; may hold anything where the mask is 0.
      mask: [B, T] bool or 0/1.

    Returns:
      Two float32 scalars without gradient.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import masked_total
      >>> pair = masked_total(jnp.array([[3.0, 5.0]]), jnp.array([[1, 0]]))
      >>> [float(x) for x in pair]
      [3.0, 1.0]
    """
    x, mask = _checks.constant("x", x), _checks.as_bool(mask)
    _checks.same_shape(2, x=x, mask=mask)
    return metric_total(x, mask)


def explained_variance(
    values: ArrayLike, returns: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """The fraction of the variance of the returns that the critic explains.

    1 - var(G - v) / var(G) over the unmasked tokens of the batch: 1 for a perfect
    critic, 0 for a constant one, negative for a worse one. VC-PPO, arXiv 2503.01491,
    monitors it while pretraining the critic. verl's `critic/vf_explained_var` divides
    by var(G) + 1e-5.

    Args:
      values: [B, T] of the critic.
      returns: [B, T], Monte-Carlo returns or value targets.
      mask: [B, T] bool or 0/1; what lies outside does not matter.

    Returns:
      A float32 scalar, a constant; nan where the returns do not vary.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import explained_variance
      >>> values, returns = jnp.array([[0.75, 0.25, 9.0]]), jnp.array([[1.0, 0.0, 0.0]])
      >>> float(explained_variance(values, returns, jnp.array([[1, 1, 0]])))
      0.75
    """
    values, mask = _checks.constant("values", values), _checks.as_bool(mask)
    returns = _checks.constant("returns", returns)
    _checks.same_shape(2, values=values, returns=returns, mask=mask)
    left = moments(returns - values, mask, 0)[1]
    total = moments(returns, mask, 0)[1]
    return jnp.where(
        total == 0, jnp.nan, 1.0 - left / jnp.where(total == 0, 1.0, total)
    )


def mean_probability(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Mean probability of the generated tokens.

    1/N sum_it m_it exp(logprobs_it): the generation probability of DAPO,
    arXiv 2503.14476, which rises as the entropy falls.

    Args:
      logprobs: [B, T] of the policy that sampled.
      mask: [B, T] bool or 0/1; what lies outside does not matter.

    Returns:
      A float32 scalar, a constant; 0 for an empty mask. `masked_total(exp(logprobs),
      mask)` gives a pair that adds up over the parts of a batch.

    Raises:
      ValueError: shapes differ, or `logprobs` is not a floating array.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import mean_probability
      >>> logprobs = jnp.log(jnp.array([[0.5, 0.25, 1.0]]))
      >>> float(mean_probability(logprobs, jnp.array([[1, 1, 0]])))
      0.375
    """
    logprobs = jax.lax.stop_gradient(_checks.floating("logprobs", logprobs))
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    total = jnp.sum(zero_masked(jnp.exp(zero_masked(logprobs, mask)), mask))
    return total / jnp.maximum(jnp.sum(mask), 1)


def zero_advantage_ratio(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Fraction of the groups whose rewards are all equal, so that they give no signal.

    #{g : max_g(R) = min_g(R)} / #{g : g not empty}. Skywork-OR1, arXiv 2505.22312,
    `batch/without_adv_ratio`. Found by max and min: the standard deviation of equal
    rewards is rarely exactly 0 in float32. `signal_fraction` counts sequences instead
    of groups.

    Args:
      rewards: [B] one per sequence.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      A float32 scalar, a constant; 0 where there is no group.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import zero_advantage_ratio
      >>> rewards, ids = jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.array([0, 0, 1, 1])
      >>> float(zero_advantage_ratio(rewards, ids, num_groups=2))
      0.5
    """
    stats = statistics(rewards, group_ids, num_groups, valid)
    filled = stats.sizes > 0
    silent = jnp.sum(filled & ~stats.signal)
    return share(silent, jnp.sum(filled), stats.centred)


def lost_group_ratio(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Fraction of the groups with a reward that is nan or infinite.

    #{g : some R_i or R_ik of g is not finite} / #{g : g not empty}. `gdpo_advantages`
    leaves such groups out; this metric counts them. 0 in a healthy run.

    Args:
      rewards: [B] one per sequence, or [B, K] components.
      group_ids: [B] int in [0, num_groups); any other id is in no group.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out.

    Returns:
      A float32 scalar, a constant; 0 where there is no group.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import lost_group_ratio
      >>> rewards = jnp.array([[1.0, jnp.nan], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
      >>> float(lost_group_ratio(rewards, jnp.array([0, 0, 1, 1]), num_groups=2))
      0.5
    """
    rewards = _checks.constant("rewards", rewards)
    if rewards.ndim == 1:
        rewards = rewards[:, None]
    _checks.same_shape(2, rewards=rewards)
    broken = jnp.any(~jnp.isfinite(rewards), axis=1).astype(jnp.int32)  # [B]
    groups = read_groups(group_ids, num_groups, valid, rewards=broken)
    filled = groups.total(jnp.ones_like(broken)) > 0  # [num_groups]
    return share(jnp.sum(groups.total(broken) > 0), jnp.sum(filled), rewards)


def mismatch_metrics(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> Metrics:
    """Differences between sampler and trainer, as (total, count) pairs.

    With d = sampler_logprobs - old_logprobs and u = exp(-d), means over unmasked tokens
    of: `sampler_diff` |d|; `sampler_k1` d and `sampler_k3` u - 1 + d, which estimate
    KL(sampler || trainer); `sampler_weight` u; `sampler_weight_square` u^2;
    `sampler_chi2` u^2 - 1. And the mean over non-empty sequences of
    `sampler_perplexity_ratio` exp(mean_t d), the trainer's perplexity over the
    sampler's. Estimators: arXiv 2402.03300, equation 4, for k3; verl
    `rollout_corr_helper.py` for the set. u is bounded to exp(+-20) and d to +-1e4, so
    that one log-prob of -inf leaves all means finite.

    The effective sample size of a mini-batch is mean(u)^2 / mean(u^2), from the added
    pairs, or `effective_sample_size` at once; maxima are in `mismatch_peaks`.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      Name -> (total, count), float32 scalars without gradient. Add totals and counts
      over micro-batches and devices, then divide once.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import mismatch_metrics
      >>> old, sampler = jnp.array([[-1.0, -2.0]]), jnp.array([[-1.5, -1.0]])
      >>> metrics = mismatch_metrics(old, sampler, jnp.ones((1, 2)))
      >>> [float(x) for x in metrics["sampler_diff"] + metrics["sampler_k1"]]
      [1.5, 2.0, 0.5, 2.0]
    """
    d, mask = _difference(old_logprobs, sampler_logprobs, mask)
    u = bounded_exp(-d)
    tokens = {
        "sampler_diff": jnp.abs(d),
        "sampler_k1": d,
        "sampler_k3": k3(d),
        "sampler_weight": u,
        "sampler_weight_square": u * u,
        "sampler_chi2": u * u - 1.0,
    }
    rows = jnp.any(mask, axis=1)
    mean = jnp.sum(d, axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)
    each = {name: (x, mask) for name, x in tokens.items()}
    each["sampler_perplexity_ratio"] = (bounded_exp(mean), rows)
    return {
        name: (accurate_sum(jnp.where(on, x, 0.0)), jnp.sum(on, dtype=jnp.float32))
        for name, (x, on) in each.items()
    }


def mismatch_peaks(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> dict[str, jax.Array]:
    """The largest difference and the largest weight between sampler and trainer.

    `sampler_diff_max` = max_it |sampler - old|, `sampler_weight_max` =
    max_it exp(old - sampler), the exponent clipped to +-20, over unmasked tokens. A
    single bad token shows in no mean, but is what truncation is for.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.

    Returns:
      Name -> float32 scalar without gradient; over micro-batches and devices take the
      maximum. 0 for an empty mask. A nan inside the mask is not hidden.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import mismatch_peaks
      >>> old, sampler = jnp.array([[-1.0, -2.0]]), jnp.array([[-1.5, -2.0]])
      >>> peaks = mismatch_peaks(old, sampler, jnp.array([[1, 1]]))
      >>> float(peaks["sampler_diff_max"]), round(float(peaks["sampler_weight_max"]), 4)
      (0.5, 1.6487)
    """
    d, mask = _difference(old_logprobs, sampler_logprobs, mask)
    return {
        "sampler_diff_max": jnp.max(jnp.abs(d), initial=0.0),
        "sampler_weight_max": jnp.max(bounded_exp(-d), initial=0.0, where=mask),
    }


def effective_sample_size(weights: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Effective sample size of importance weights, as a fraction of the tokens.

    ESS / n = (mean w)^2 / mean(w^2), n the unmasked tokens: 1 for equal weights, 1 / n
    when one token has all the weight. Kong 1992. verl clips the weights to [1 / cap,
    cap] first; pass what you want measured.

    Args:
      weights: [B, T] >= 0, of the whole mini-batch; parts do not add up, but those of
        `mismatch_metrics` do.
      mask: [B, T] bool or 0/1; what the weights are where it is 0 does not matter.

    Returns:
      A float32 scalar without gradient in [0, 1]; 0 if no token has weight.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import effective_sample_size
      >>> weights, mask = jnp.array([[3.0, 1.0, 0.0, 0.0]]), jnp.ones((1, 4))
      >>> round(float(effective_sample_size(weights, mask)), 4)
      0.4
    """
    weights, mask = _checks.constant("weights", weights), _checks.as_bool(mask)
    _checks.same_shape(2, weights=weights, mask=mask)
    weights = zero_masked(weights, mask)
    # Divided by the largest first: squares of 1e25 would overflow.
    peak = jnp.max(weights, initial=0.0)
    weights = weights / jnp.where(peak == 0, 1.0, peak)
    count = at_least_one(jnp.sum(mask))
    mean = jnp.sum(weights) / count
    # About the mean: a rounding of it then hardly counts.
    spread = jnp.sum(jnp.square(zero_masked(weights - mean, mask))) / count
    squares = mean * mean + spread
    return mean * mean / jnp.where(squares == 0, 1.0, squares)


def _difference(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """log mu - log pi_old [B, T], 0 outside the mask, and the mask as bool."""
    old = _checks.floating("old_logprobs", old_logprobs)
    sampler = _checks.floating("sampler_logprobs", sampler_logprobs)
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, old_logprobs=old, sampler_logprobs=sampler, mask=mask)
    # An engine's -inf counts like the -9999 that others report in its place.
    d = jnp.clip(jnp.where(mask, sampler - old, 0.0), -_FARTHEST, _FARTHEST)
    return jax.lax.stop_gradient(d), mask
