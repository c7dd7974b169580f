"""Log-probabilities and entropies of tokens from their logits."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import pick


def token_logprobs(
    logits: ArrayLike, tokens: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Log-probability of each token under its logits.

    log p(y_t) = z_{y_t} / tau - log sum_v exp(z_v / tau), in float32. `tau` is the
    sampling temperature: leave it out and the ratio is not 1 on policy.

    Args:
      logits: [B, T, V], those that predict `tokens`.
      tokens: [B, T] int; an id >= V gives nan.
      temperature: of the sampler, > 0.

    Returns:
      [B, T] float32.

    Raises:
      ValueError: shapes or types do not fit, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_logprobs
      >>> logits = jnp.array([[[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]])
      >>> logprobs = token_logprobs(logits, jnp.array([[1, 2]]))
      >>> [round(x, 4) for x in logprobs[0].tolist()]
      [-0.4644, -0.0659]
    """
    logits = _checks.floating("logits", logits)
    tokens = _checks.integers("tokens", tokens)
    _check_logits(logits)
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens must have shape {list(logits.shape[:-1])} like the logits, "
            f"got {list(tokens.shape)}"
        )
    _checks.positive("temperature", temperature)
    shifted, log_total = _normalise(logits / temperature)
    return pick(shifted, tokens) - log_total


def token_entropy(
    logits: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Entropy of the distribution at each position.

    H = - sum_v p_v log p_v with p = softmax(z / tau), in nats and float32. Logits of
    -inf (forbidden tokens) count 0.

    Args:
      logits: [B, T, V].
      temperature: of the sampler, > 0.

    Returns:
      [B, T] float32, differentiable.

    Raises:
      ValueError: `logits` is not a floating array, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_entropy
      >>> even = jnp.zeros((1, 1, 4))
      >>> round(float(token_entropy(even)[0, 0]), 4)
      1.3863
    """
    logits = _checks.floating("logits", logits)
    _check_logits(logits)
    _checks.positive("temperature", temperature)
    shifted, log_total = _normalise(logits / temperature)
    weights = jnp.exp(shifted - log_total[..., None])
    # 0 * -inf is nan, so the factor of a weight of 0 is set first.
    shifted = jnp.where(weights > 0, shifted, 0.0)
    return log_total - jnp.sum(weights * shifted, axis=-1)


def _check_logits(logits: jax.Array) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits must have shape [B, T, V], got {list(logits.shape)}")


def _normalise(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits less their maximum [..., V] and the log of the sum of their exp [...]."""
    # The maximum cancels: it takes no part in the gradient. Logits of 1000 lose no
    # digits this way.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    shifted = logits - top
    return shifted, jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
