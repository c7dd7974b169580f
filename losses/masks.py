"""Which tokens and sequences a loss applies to.

`high_entropy_mask` and `off_policy_sequence_mask` are meant as `weights` of a policy
loss: what they exclude gives no gradient, and denominators stay those of the mask.
`overlong_mask` is a mask, taken before the tokens are counted.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import number_of_tokens, row_means, top_tokens
from jaxrl_reason.losses._policy import policy_batch


def high_entropy_mask(
    entropy: ArrayLike, mask: ArrayLike, *, fraction: float | jax.Array = 0.2
) -> jax.Array:
    """The tokens of highest entropy, where a chain of thought branches.

    The max(1, floor(fraction N)) unmasked tokens of highest entropy, N the unmasked
    tokens of the mini-batch. arXiv 2506.01939: the policy gradient on the top fifth
    only, still divided by all tokens. Call it once with the whole mini-batch, as the
    threshold is that of the batch, and pass it as `weights`.

    Public libraries differ: TRL keeps what is at or above a quantile of the rows of
    each device, so ties and interpolation change the number. Here exactly that number
    is chosen, and of equals the earlier one.

    Args:
      entropy: [B, T] of the policy; a constant.
      mask: [B, T] bool or 0/1; what the entropy holds where it is 0 does not matter.
      fraction: of the unmasked tokens, in (0, 1].

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
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, entropy=entropy, mask=mask)
    _checks.number("fraction", fraction, above=0, at_most=1)
    return top_tokens(entropy, mask, number_of_tokens(fraction, mask))


def off_policy_sequence_mask(
    logprobs: ArrayLike,
    sampler_logprobs: ArrayLike,
    advantages: ArrayLike,
    mask: ArrayLike,
    *,
    delta: float | jax.Array,
) -> jax.Array:
    """Excludes sequences of negative advantage that the policy has moved far away from.

    keep_i = not (A_i < 0 and (1/n_i) sum_t m_it (sampler - policy)_it > delta), the
    mean being over log-probs. DeepSeek-V3.2, arXiv 2512.02556, which does not publish
    its delta (TRL suggests 0.5). Sequences with A_i >= 0 are always kept. The loss is
    still divided by all sequences: pass the result as `weights`.

    Args:
      logprobs: [B, T] of the policy being trained; taken as a constant.
      sampler_logprobs: [B, T] as reported by the sampler; a constant.
      advantages: [B], or [B, T] whose mean over a sequence's tokens is taken.
      mask: [B, T] bool or 0/1; what the arrays hold where it is 0 does not matter.
      delta: highest mean log-ratio of a sequence with A_i < 0, >= 0.

    Returns:
      [B] bool, True for sequences to keep and for fully masked rows.

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
    _checks.number("delta", delta, at_least=0)
    # The sampler's log-probs in place of the old ones.
    batch = policy_batch(logprobs, sampler_logprobs, advantages, mask)
    away = jax.lax.stop_gradient(-row_means(batch.log_ratio, batch.mask))
    bad = jnp.sum(batch.advantages, axis=1) < 0
    return ~(bad & (away > delta))


def overlong_mask(mask: ArrayLike, truncated: ArrayLike) -> jax.Array:
    """Takes truncated responses out of the loss.

    m'_it = m_it and not truncated_i. DAPO's overlong filtering, arXiv 2503.14476,
    section 3.4. Count after it: a row that is masked out belongs in no denominator.

    Args:
      mask: [B, T] bool or 0/1.
      truncated: [B] bool or 0/1, True where the length limit stopped the response.

    Returns:
      [B, T] bool.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import overlong_mask
      >>> print(overlong_mask(jnp.array([[1, 1], [1, 0]]), jnp.array([True, False])))
      [[False False]
       [ True False]]
    """
    mask, truncated = _checks.as_bool(mask), _checks.as_bool(truncated)
    _checks.same_shape(2, mask=mask)
    return mask & ~_checks.per_row("truncated", truncated, mask)
