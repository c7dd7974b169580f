"""The inputs of losses on pairs: log-probs of responses and the number of pairs."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import zero_masked


def sequence_logprobs(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Log-probability of each response: the sum over its tokens.

    log pi(y | x) = sum_t m_t log pi(y_t | x, y_<t). DPO, arXiv 2305.18290, uses this
    sum, including the end token.

    Args:
      logprobs: [B, T] of the policy or of the reference.
      mask: [B, T] bool or 0/1, True on the response's tokens.

    Returns:
      [B] float32, differentiable; 0 for a row without tokens, which is not a response:
      exclude it with `valid`.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import sequence_logprobs
      >>> logprobs, mask = jnp.array([[-0.5, -2.0, 9.0]]), jnp.array([[1, 1, 0]])
      >>> print(sequence_logprobs(logprobs, mask))
      [-2.5]
    """
    return _sums(logprobs, mask)[0]


def average_logprobs(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Mean log-probability of each response's tokens.

    sum_t m_t log pi_t / sum_t m_t. SimPO, ORPO and length-normalised DPO compare these,
    and TRL passes them to IPO. In place of `sequence_logprobs` they change the meaning
    of beta.

    Args:
      logprobs: [B, T] of the policy or of the reference.
      mask: [B, T] bool or 0/1, True on the response's tokens.

    Returns:
      [B] float32, differentiable; 0 for a row without tokens.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import average_logprobs
      >>> logprobs, mask = jnp.array([[-0.5, -2.0, 9.0]]), jnp.array([[1, 1, 0]])
      >>> print(average_logprobs(logprobs, mask))
      [-1.25]
    """
    sums, mask = _sums(logprobs, mask)
    return sums / jnp.maximum(jnp.sum(mask, axis=1, dtype=jnp.float32), 1.0)


def count_pairs(valid: ArrayLike) -> jax.Array:
    """The number of pairs in a whole mini-batch: `num_pairs` of every pair loss.

    #{i : valid_i}. Counted once, before the mini-batch is split, as `batch_counts` is.

    Args:
      valid: [B] bool or 0/1, of the whole mini-batch.

    Returns:
      An int32 scalar.

    Raises:
      ValueError: `valid` does not have exactly one axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import count_pairs
      >>> int(count_pairs(jnp.array([1, 1, 0])))
      2
    """
    valid = _checks.as_bool(valid)
    _checks.same_shape(1, valid=valid)
    return jnp.sum(valid, dtype=jnp.int32)


def _sums(logprobs: ArrayLike, mask: ArrayLike) -> tuple[jax.Array, jax.Array]:
    logprobs, mask = _checks.floating("logprobs", logprobs), _checks.as_bool(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=mask)
    return jnp.sum(zero_masked(logprobs, mask), axis=1), mask
