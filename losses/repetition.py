"""Penalties for repeated n-grams of tokens, per sequence or per token.

n-grams are compared exactly, not by a hash: one sort numbers the pairs of tokens
(2-grams), another the pairs of those numbers (4-grams), and so on, which takes time T
log T log n and only arrays of shape [B, T].
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import at_least_one, whole


def repetition_penalty(
    tokens: ArrayLike, mask: ArrayLike, *, n: int, penalty: float | jax.Array
) -> jax.Array:
    """A penalty that grows with the fraction of repeated n-grams.

    r_i = penalty (1 - unique n-grams / n-grams); 0 for a response shorter than n.
    Demystifying Long CoT, arXiv 2502.03373, and open-r1, which splits the text at
    white space; here n-grams are of tokens. An n-gram is n adjacent unmasked tokens;
    one that a masked token interrupts does not count.

    Args:
      tokens: [B, T] int; what they are where the mask is 0 does not matter.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      n: static, >= 1.
      penalty: the limit for a response that only repeats itself, finite and <= 0.

    Returns:
      [B] float32 constants in [penalty, 0].

    Raises:
      ValueError: shapes differ, `tokens` are not integers, `n` < 1 or `penalty` > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import repetition_penalty
      >>> tokens = jnp.array([[1, 2, 3, 4, 0], [5, 5, 5, 5, 5], [1, 2, 1, 2, 1]])
      >>> mask = jnp.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
      >>> print(repetition_penalty(tokens, mask, n=2, penalty=-1.0))
      [ 0.   -0.75 -0.5 ]
    """
    _check_penalty(penalty)
    repeated, complete = _repeated_ngrams(tokens, mask, n)
    number, total = jnp.sum(repeated, axis=1), jnp.sum(complete, axis=1)
    fraction = number.astype(jnp.float32) / at_least_one(total)
    return jnp.where(fraction > 0, fraction * penalty, 0.0)  # 0 and not -0


def token_repetition_penalty(
    tokens: ArrayLike,
    mask: ArrayLike,
    *,
    n: int = 40,
    penalty: float | jax.Array = -0.05,
) -> jax.Array:
    """A penalty on every token of a repeated n-gram: the dense form.

    r_it = penalty if token t is part of an n-gram that also occurred earlier in the
    response, else 0; the first occurrence is free, and a token in several repeated
    n-grams is penalised once. Demystifying Long CoT, arXiv 2502.03373: n = 40 and
    -0.05, discounted with its own gamma of 0.99 while correctness has gamma 1: the sum
    of two calls of `discounted_returns`.

    Args:
      tokens: [B, T] int; what they are where the mask is 0 does not matter.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      n: static, >= 1.
      penalty: per token, finite and <= 0.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, `tokens` are not integers, `n` < 1 or `penalty` > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_repetition_penalty
      >>> tokens, mask = jnp.array([[1, 2, 3, 1, 2, 3, 9]]), jnp.ones((1, 7))
      >>> print(token_repetition_penalty(tokens, mask, n=3, penalty=-0.5))
      [[ 0.   0.   0.  -0.5 -0.5 -0.5  0. ]]
    """
    _check_penalty(penalty)
    repeated, _ = _repeated_ngrams(tokens, mask, n)
    width = repeated.shape[1]
    if n > width:
        return jnp.zeros(repeated.shape, jnp.float32)
    # How many repeated n-grams begin at one of the n positions up to t.
    begun = jnp.cumsum(repeated, axis=1, dtype=jnp.int32)
    earlier = jnp.pad(begun[:, : width - n], ((0, 0), (n, 0)))
    return jnp.where(begun > earlier, jnp.asarray(penalty, jnp.float32), 0.0)


def _check_penalty(penalty: float | jax.Array) -> None:
    _checks.number("penalty", penalty, at_most=0)


def _repeated_ngrams(
    tokens: ArrayLike, mask: ArrayLike, n: int
) -> tuple[jax.Array, jax.Array]:
    """[B, T] bool twice, by first position: n-grams seen before, and all n-grams."""
    tokens, mask = _checks.integers("tokens", tokens), _checks.as_bool(mask)
    _checks.same_shape(2, tokens=tokens, mask=mask)
    n = _checks.static_size("n", n)
    tokens, mask = whole(tokens, 1), whole(mask, 1)
    rows, width = tokens.shape
    if n > width:
        none = jnp.zeros((rows, width), bool)
        return none, none
    count = jnp.pad(jnp.cumsum(mask, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    complete = jnp.pad(count[:, n:] - count[:, :-n] == n, ((0, 0), (0, n - 1)))
    names, size = tokens, 1
    while 2 * size <= n:
        names, size = _pair_names(names, _shifted(names, size)), 2 * size
    if size < n:  # two overlapping pieces of n tokens
        names = _pair_names(names, _shifted(names, n - size))
    # Complete n-grams first, equal ones side by side, in the order of the text.
    keys = ((~complete).astype(jnp.int32), names, _positions(names))
    dead, names, at = jax.lax.sort(keys, dimension=1, num_keys=3)
    same = jnp.pad(names[:, 1:] == names[:, :-1], ((0, 0), (1, 0)))
    repeated = same & (dead == 0)
    return _in_order(at, repeated.astype(jnp.int32)) > 0, complete


def _pair_names(first: jax.Array, second: jax.Array) -> jax.Array:
    """One number per pair: within a row, equal exactly where both parts are equal."""
    keys = (first, second, _positions(first))
    first, second, at = jax.lax.sort(keys, dimension=1, num_keys=2)
    new = (first[:, 1:] != first[:, :-1]) | (second[:, 1:] != second[:, :-1])
    names = jnp.pad(jnp.cumsum(new, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    return _in_order(at, names)


def _in_order(at: jax.Array, x: jax.Array) -> jax.Array:
    """x, sorted by the original positions of its entries."""
    ordered: jax.Array = jax.lax.sort((at, x), dimension=1, num_keys=1)[1]
    return ordered


def _positions(x: jax.Array) -> jax.Array:
    # The zeros give it the sharding of x, which a sort requires of all its arrays.
    return jnp.zeros_like(x) + jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)


def _shifted(x: jax.Array, by: int) -> jax.Array:
    """x[:, t + by]; arbitrary past the end, where no complete n-gram reaches."""
    return jnp.pad(x[:, by:], ((0, 0), (0, by)))
