"""Likelihood losses: what supervised training minimises."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import keep


def nll(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Negative log-likelihood of each token.

    l = -log pi. With `token_mean`, over the tokens of the responses, it is the loss of
    supervised fine-tuning.

    Args:
      logprobs: [B, T] of the policy being trained.
      mask: [B, T] bool or 0/1, True on the tokens to be learnt.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax.numpy as jnp
          >>> from jaxrl_reason.losses import nll
      >>> print(nll(jnp.array([[-0.5, -2.0]]), jnp.array([[1, 0]])))
      [[0.5 0. ]]
    """
    logprobs, live = _checks.floating("logprobs", logprobs), _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=live)
    return keep(-logprobs, live)
