"""Supervised losses beside the likelihood: dynamic fine-tuning."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import keep


def dft(logprobs: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Dynamic fine-tuning: the likelihood of each token, weighed by its probability.

    l = -sg(pi) log pi, so that dl / dlog pi = -pi. DFT, arXiv 2508.05629:
    as a policy gradient, supervised fine-tuning pays a token 1 / pi; the weight takes
    that out, and tokens that the policy finds unlikely no longer rule the gradient.
    With `token_mean` it is the loss; TRL's `loss_type="dft"` is the same.

    Args:
      logprobs: [B, T] of the policy being trained. What lies above 0 weighs 1.
      mask: [B, T] bool or 0/1, True on the tokens to be learnt.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `logprobs` is not an array of floats.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses.fine_tuning import dft
      >>> logprobs, mask = jnp.log(jnp.array([[0.5, 0.25]])), jnp.array([[1, 0]])
      >>> jax.grad(lambda x: dft(x, mask).sum())(logprobs).tolist()
      [[-0.5, 0.0]]
    """
    logprobs, live = _checks.floating("logprobs", logprobs), _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, mask=live)
    logprobs = keep(logprobs, live)
    weight = jax.lax.stop_gradient(jnp.exp(jnp.minimum(logprobs, 0.0)))
    return keep(-weight * logprobs, live)
