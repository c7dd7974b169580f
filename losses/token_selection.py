"""Which tokens and sequences a loss is for: high entropy, not too far off policy.

Both are constants and meant as `weights` of a composition: what they leave out gives no
gradient, and denominators stay those of the mask.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import keep, policy_arrays
from jaxrl_reason.losses.sequence_ratio import mean_log_ratio


def high_entropy_mask(
    entropy: ArrayLike, mask: ArrayLike, *, fraction: float | jax.Array = 0.2
) -> jax.Array:
    """The tokens of highest entropy: those at which a chain of thought forks.

    The max(1, floor(fraction N)) live tokens of highest entropy, N the live tokens of
    the mini-batch. arXiv 2506.01939: the policy gradient on the top fifth
    alone, still divided by all tokens. Call it once with the whole mini-batch, as the
    threshold is one of the batch, and hand it on as `weights`.

    Public libraries differ: TRL keeps what is at or above a quantile of the rows of
    each device, so ties and interpolation change the number. Here exactly that number
    is chosen and the earlier of equals goes first.

    Args:
      entropy: [B, T] of the policy; a constant.
      mask: [B, T] bool or 0/1; what the entropy holds where it is 0 does not matter.
      fraction: of the live tokens, in (0, 1].

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: shapes differ, or `fraction` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import high_entropy_mask
      >>> entropy = jnp.array([[0.1, 2.0, 0.3], [1.0, 0.0, 9.0]])
      >>> mask = jnp.array([[1, 1, 1], [1, 1, 0]])
      >>> print(high_entropy_mask(entropy, mask, fraction=0.4))
      [[False  True False]
       [ True False False]]
    """
    entropy = jax.lax.stop_gradient(_checks.floating("entropy", entropy))
    live = _checks.flags(mask)
    _checks.same_shape(2, entropy=entropy, mask=live)
    return top_tokens(entropy, live, number_of_tokens(fraction, live))


def off_policy_sequence_mask(
    logprobs: ArrayLike,
    sampler_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    delta: float | jax.Array,
) -> jax.Array:
    """Leaves out bad sequences that the policy has moved far away from.

    keep_i = not (A_i < 0 and (1/n_i) sum_t m_it (sampler - policy)_it > delta), the
    mean being over log-probs. DeepSeek-V3.2, arXiv 2512.02556, which does not publish
    its delta (TRL suggests 0.5). Good sequences are always kept. The loss is still
    divided by all sequences: hand the flags on as `weights`.

    Args:
      logprobs: [B, T] of the policy being trained; taken as a constant.
      sampler_logprobs: [B, T] as reported by the sampler; a constant.
      advantages: [B], or [B, T] whose mean over a sequence's tokens is taken.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      delta: highest mean log-ratio of a bad sequence, >= 0.

    Returns:
      [B] bool, True for sequences to keep and for rows that are masked as a whole.

    Raises:
      ValueError: shapes differ, or `delta` < 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import off_policy_sequence_mask
      >>> policy, sampler = jnp.full((2, 1), -2.0), jnp.full((2, 1), -1.0)
      >>> a, mask = jnp.array([1.0, -1.0]), jnp.ones((2, 1))
      >>> print(off_policy_sequence_mask(policy, sampler, a, mask, delta=0.5))
      [ True False]
    """
    _checks.not_negative("delta", delta)
    log_ratio, advantages, live = policy_arrays(
        logprobs, sampler_logprobs, advantages, mask
    )
    away = jax.lax.stop_gradient(-mean_log_ratio(log_ratio, live))
    bad = jnp.sum(keep(advantages, live), axis=1) < 0
    return ~(bad & (away > delta))


def number_of_tokens(fraction: float | jax.Array, live: jax.Array) -> jax.Array:
    """max(1, floor(fraction N)) as an int32 scalar, N the live tokens."""
    _checks.setting("fraction", fraction, "in (0, 1]", lambda x: 0 < x <= 1)
    tokens = jnp.sum(live, dtype=jnp.float32)
    # The slack outweighs the rounding of products that are whole numbers.
    number = jnp.floor(fraction * tokens * (1.0 + 1e-6))
    return jnp.maximum(number, 1.0).astype(jnp.int32)


def top_tokens(scores: jax.Array, eligible: jax.Array, number: jax.Array) -> jax.Array:
    """The `number` eligible tokens of highest score, or all if there are fewer.

    By rank, as the number is traced; equal scores rank by position, so that never more
    than the number are chosen.
    """
    order = jnp.argsort(jnp.where(eligible, -scores, jnp.inf).ravel(), stable=True)
    rank = jnp.argsort(order).reshape(scores.shape)
    return eligible & (rank < number)
