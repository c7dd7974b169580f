"""Reward shaping from lengths: DAPO's overlong penalty and overlong filter."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks


def soft_overlong_penalty(
    lengths: ArrayLike,
    *,
    max_length: float | jax.Array,
    cache_length: float | jax.Array,
) -> jax.Array:
    """A penalty that grows over the last tokens before the limit, floored at -1.

    R(n) = 0 for n <= max_length - cache_length, -1 for n > max_length, and
    (max_length - cache_length - n) / cache_length between. DAPO, arXiv 2503.14476,
    equation 13; added to the reward of correctness.

    Args:
      lengths: response lengths in tokens (not characters), any shape.
      max_length: tokens, finite and > 0.
      cache_length: tokens over which the penalty grows, in (0, max_length].

    Returns:
      float32 in [-1, 0], the shape of `lengths`.

    Raises:
      ValueError: a length setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import soft_overlong_penalty
      >>> lengths = jnp.array([16000, 17408, 20480, 30000])
      >>> print(soft_overlong_penalty(lengths, max_length=20480, cache_length=4096))
      [ 0.   -0.25 -1.   -1.  ]
    """
    _checks.positive("max_length", max_length)
    limit = math.inf
    if not isinstance(max_length, jax.core.Tracer):
        limit = float(max_length)
    _checks.setting(
        "cache_length",
        cache_length,
        f"in (0, max_length = {limit:g}]",
        lambda x: 0 < x <= limit and x < math.inf,
    )
    room = (max_length - cache_length) - _checks.constant("lengths", lengths)
    return jnp.clip(room / cache_length, -1.0, 0.0)


def overlong_mask(mask: ArrayLike, truncated: ArrayLike) -> jax.Array:
    """Takes truncated responses out of the loss.

    m'_it = m_it and not truncated_i. DAPO's overlong filtering, arXiv 2503.14476,
    section 3.4. Count after it: a row that is off belongs in no denominator.

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
    live, cut = _checks.flags(mask), _checks.flags(truncated)
    _checks.same_shape(2, mask=live)
    return live & ~_checks.one_a_row("truncated", cut, live)
