"""Rollout correction: the sampler is not quite the policy that is trained.

Three policies: the sampler mu reports `sampler_logprobs`, the trainer computes
`old_logprobs` of the same weights, and the policy is trained away from them. The
weights here, u = pi_old / mu, stand between the first two; the ratio of a clipped
objective stands between the last two. All are constants, for the `weights` of every
policy loss.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import at_least_one, bounded_exp, k3, zero_masked


def importance_weights(
    old_logprobs: ArrayLike,
    sampler_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    kind: str = "token",
    cap: float | jax.Array = 2.0,
) -> jax.Array:
    """Truncated importance weights between sampler and trainer (TIS).

    u_t = exp(old_logprobs - sampler_logprobs); kind "token": w_t = min(u_t, cap). The
    other kinds give all tokens of a row one weight, min(., cap) of prod_s u_s
    ("sequence"), (prod_s u_s)^(1/n) ("geometric") or max_s u_s ("max"). "Your efficient
    RL framework secretly brings you off-policy RL training",
    fengyao.notion.site/off-policy-rl; V-trace's truncation, arXiv 1802.01561, section
    4.1. Log-weights, summed where they are, are bounded to +-20. Token weights are
    biased, sequence weights are not and vary more: at 8,000 tokens a mean gap of 3.5e-4
    is a factor exp(2.8), which the geometric mean undoes. OpenRLHF's "tis" also
    clips below; verl and this function do not.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them, at the same temperature.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      kind: "token", "sequence", "geometric" or "max".
      cap: the largest weight, > 0.

    Returns:
      [B, T] float32 constants, zero outside the mask: the `weights` of a policy loss.
      Denominators stay those of the mask.

    Raises:
      ValueError: shapes differ, `kind` is unknown, or `cap` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import importance_weights
      >>> old, sampler = jnp.log(jnp.array([[0.5, 0.3], [0.2, 0.2]]))
      >>> arrays = jnp.array([old]), jnp.array([sampler]), jnp.ones((1, 2))
      >>> print(importance_weights(*arrays).round(4))
      [[2.  1.5]]
      >>> print(importance_weights(*arrays, kind="sequence", cap=9.0).round(4))
      [[3.75 3.75]]
    """
    _checks.number("cap", cap, above=0, finite=False)
    log_weights, mask = _log_weights(old_logprobs, sampler_logprobs, mask, kind)
    return zero_masked(jnp.minimum(bounded_exp(log_weights), cap), mask)


def masked_importance_weights(
    old_logprobs: ArrayLike,
    sampler_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    kind: str = "token",
    low: float | jax.Array,
    high: float | jax.Array,
) -> jax.Array:
    """Importance weights, zero where they leave a band (MIS, IcePop).

    w_t = u_t if low <= u_t <= high, else 0, u as in `importance_weights`; the kinds
    "sequence", "geometric" and "max" test the weight of the row and drop whole rows.
    IcePop is the kind "token"; bounds in use: 0.5 and 5 (ProRL v2), 0.5 and 2 (TRL's
    example). A dropped token teaches nothing and stays in the denominator. OpenRLHF's
    "seq-mask-tis" tests the geometric mean and then applies token weights, which are
    not truncated, though its comment says so.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      kind: "token", "sequence", "geometric" or "max".
      low: the smallest weight kept, >= 0.
      high: the largest weight kept, finite and >= `low`. Both are bounds of
        pi_old / mu: verl's k1 thresholds bound mu / pi_old, see `rejection_mask`.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, `kind` is unknown, or a bound is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import masked_importance_weights
      >>> old, sampler = jnp.log(jnp.array([[0.5, 0.3], [0.2, 0.2]]))
      >>> arrays = jnp.array([old]), jnp.array([sampler]), jnp.ones((1, 2))
      >>> print(masked_importance_weights(*arrays, low=0.5, high=2.0).round(4))
      [[0.  1.5]]
    """
    _check_band(low, high)
    log_weights, mask = _log_weights(old_logprobs, sampler_logprobs, mask, kind)
    weights = bounded_exp(log_weights)
    # A nan is outside no band: it stays, so that it shows.
    outside = (weights < low) | (weights > high)
    return zero_masked(jnp.where(outside, 0.0, weights), mask)


def rejection_mask(
    old_logprobs: ArrayLike,
    sampler_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    kind: str = "geometric",
    estimator: str = "k1",
    low: float | jax.Array | None = None,
    high: float | jax.Array,
) -> jax.Array:
    """Which sequences agree with the sampler well enough to learn from.

    u = pi_old / mu as in `importance_weights`. With the estimator "k1" u itself is
    tested: kind "geometric": low <= exp(mean_t log u_t) <= high (verl 0.999 and 1.001);
    "sequence": low <= prod_t u_t <= high; "worst": low <= u_t <= high for every token
    of the row (a veto by outliers, 1e-4 to 100); "token": the same for each token on
    its own. "k2", (log u)^2 / 2, and "k3", u - 1 - log u, estimate KL(mu || pi_old) and
    have no lower bound: kind "geometric" is then mean_t k_t <= high (0.001 to 0.01 for
    k3), "sequence" sum_t k_t <= high, "worst" max_t k_t <= high, "token" k_t <= high.
    verl `rollout_corr_helper.py`, where these are seq_mean, seq_sum, seq_max and token;
    there the thresholds of k1 bound mu / pi_old, so its "0.5_5.0" is low=0.2, high=2.0
    here.

    What it does to denominators is the caller's choice. `mask & accepted[:, None]`
    before `batch_counts` takes the rows out of them, as in verl; `weights * accepted[:,
    None]` with the old mask leaves them in, so that every rejected row shrinks the
    loss, and does not touch the KL and entropy terms.

    Args:
      old_logprobs: [B, T] of the policy at the start of the update, by the trainer.
      sampler_logprobs: [B, T] as the sampler reported them.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      kind: "geometric", "sequence", "worst" or "token".
      estimator: "k1", "k2" or "k3".
      low: the lower bound, >= 0; None with "k2" and "k3".
      high: the upper bound, finite and >= `low`.

    Returns:
      [B] bool, True for rows to keep; an empty row is kept. With kind "token" [B, T],
      False outside the mask. A nan keeps its row: it is not hidden.

    Raises:
      ValueError: shapes differ, `kind` or `estimator` is unknown, or a bound is out of
        its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import rejection_mask
      >>> old = jnp.array([[-1.0, -2.0], [-1.0, -2.0]])
      >>> sampler = jnp.array([[-1.1, -1.9], [-1.2, -2.2]])
      >>> print(rejection_mask(old, sampler, jnp.ones((2, 2)), low=0.9, high=1.1))
      [ True False]
    """
    _checks.one_of("kind", kind, ("geometric", "sequence", "worst", "token"))
    _checks.one_of("estimator", estimator, ("k1", "k2", "k3"))
    if estimator != "k1":
        _checks.number("high", high, at_least=0)
        if low is not None:
            raise ValueError(
                f"low must be None with the estimator {estimator!r}, got {low!r}"
            )
    elif low is None:
        raise ValueError(f"low must be a number with kind {kind!r}, got None")
    else:
        _check_band(low, high)
    log_weights, mask = _log_weights(old_logprobs, sampler_logprobs, mask, "token")
    if estimator == "k1":
        found = log_weights
    elif estimator == "k2":
        found = 0.5 * jnp.square(log_weights)
    else:
        found = k3(-log_weights)  # whose argument is log mu - log pi_old
    if kind in ("geometric", "sequence"):
        found = jnp.sum(found, axis=1, keepdims=True)  # 0 outside the mask
    if kind == "geometric":
        found = found / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    if estimator == "k1":
        found = bounded_exp(found)
    # By what is outside: a nan is outside of no band.
    outside = found > high if low is None else (found < low) | (found > high)
    outside = mask & outside  # [B, T]
    return mask & ~outside if kind == "token" else ~jnp.any(outside, axis=1)


def normalize_weights(
    weights: ArrayLike, mask: ArrayLike, *, mean: float | jax.Array
) -> jax.Array:
    """Importance weights divided by their mean over the mini-batch.

    w'_t = w_t / mean. The mean is of the truncated or masked weights, over the whole
    mini-batch: the sum over its parts of `token_mean(weights, mask, counts)`, or of
    `sequence_mean` for weights per sequence. It is an argument, never computed
    from the rows at hand, which would make the loss depend on how the mini-batch is
    split. verl's `rollout_is_batch_normalize`.

    Args:
      weights: [B, T] of `importance_weights` or `masked_importance_weights`.
      mask: [B, T] bool or 0/1.
      mean: scalar, the mean over the mini-batch. Where it is 0, so are all weights,
        and they stay 0.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `mean` is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, token_mean
      >>> from jaxrl_reason.losses import normalize_weights
      >>> weights, mask = jnp.array([[2.0, 1.0, 1.0, 0.0]]), jnp.ones((1, 4))
      >>> mean = token_mean(weights, mask, batch_counts(mask))
      >>> print(normalize_weights(weights, mask, mean=mean))
      [[2. 1. 1. 0.]]
      >>> print(normalize_weights(weights, mask, mean=0.5))
      [[4. 2. 2. 0.]]
    """
    _checks.number("mean", mean, at_least=0)
    weights, mask = _checks.constant("weights", weights), _checks.as_bool(mask)
    _checks.same_shape(2, weights=weights, mask=mask)
    mean = _checks.constant("mean", mean).astype(weights.dtype)
    return zero_masked(weights, mask) / jnp.where(mean == 0, 1.0, mean)


def _check_band(low: float | jax.Array, high: float | jax.Array) -> None:
    _checks.number("low", low, at_least=0)
    floor = 0.0 if isinstance(low, jax.core.Tracer) else float(low)
    _checks.number("high", high, at_least=floor, rule=f"finite and >= low = {floor:g}")


def _log_weights(
    old_logprobs: ArrayLike, sampler_logprobs: ArrayLike, mask: ArrayLike, kind: str
) -> tuple[jax.Array, jax.Array]:
    """log u [B, T], or its row's statistic on every token; and the mask as bool."""
    _checks.one_of("kind", kind, ("token", "sequence", "geometric", "max"))
    old = _checks.floating("old_logprobs", old_logprobs)
    sampler = _checks.floating("sampler_logprobs", sampler_logprobs)
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, old_logprobs=old, sampler_logprobs=sampler, mask=mask)
    log_weights = jax.lax.stop_gradient(zero_masked(old - sampler, mask))
    if kind == "token":
        return log_weights, mask
    if kind == "max":
        highest = jnp.where(mask, log_weights, -jnp.inf)
        of_row = jnp.max(highest, axis=1, keepdims=True, initial=-jnp.inf)
    else:
        of_row = jnp.sum(log_weights, axis=1, keepdims=True)
    if kind == "geometric":
        of_row = of_row / at_least_one(jnp.sum(mask, axis=1, keepdims=True))
    return jnp.broadcast_to(of_row, mask.shape), mask
