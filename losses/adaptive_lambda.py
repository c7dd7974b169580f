"""VAPO's length-adaptive lambda for GAE."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks


def length_adaptive_lambda(
    lengths: ArrayLike, *, alpha: float | jax.Array = 0.05
) -> jax.Array:
    """GAE's lambda of each response, so that its horizon grows with its length.

    lam_i = 1 - 1 / (alpha l_i), cut to [0, 1]: the weights of the temporal differences,
    1 / (1 - lam), sum to alpha l. VAPO, arXiv 2504.05118, for the policy's
    advantages; the critic's targets keep lambda 1. The paper leaves lengths below
    1 / alpha = 20 tokens open, where the formula is negative: here they get 0.

    Args:
      lengths: tokens of each response, any shape; [B] for `gae`. Integers or floats; 0
        gives 0.
      alpha: finite and > 0.

    Returns:
      float32 constants in [0, 1], the shape of `lengths`, rising with the length.

    Raises:
      ValueError: `alpha` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import length_adaptive_lambda
      >>> print(length_adaptive_lambda(jnp.array([10, 40, 200])))
      [0.  0.5 0.9]
    """
    _checks.positive("alpha", alpha)
    horizon = alpha * _checks.constant("lengths", lengths)
    # Cut before the division: from a horizon of 1 down lambda is 0.
    return jax.lax.stop_gradient(1.0 - 1.0 / jnp.maximum(horizon, 1.0))
