"""Arithmetic on checked arrays: masks are bool, numbers float32, nothing raises.

Public functions check what they are given (`_checks`, `_policy`), then compute with
these. Everything stays finite: select and bound before exp, do not cancel.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxrl_reason.losses.reductions import Counts

Metrics = dict[str, tuple[jax.Array, jax.Array]]

# exp(20) is about 5e8: far past any clip, far from float32's overflow.
LOG_RATIO_BOUND = 20.0

# 1/n for n = 10 .. 3, the nested factors of the series of exp(-d) - 1 + d.
_SERIES = tuple(1.0 / n for n in range(10, 2, -1))


def zero_masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """`x` where the mask is set, else 0; what lies outside may be nan."""
    return jnp.where(mask, x, 0.0)


def bounded_exp(log_ratio: jax.Array) -> jax.Array:
    """exp of a log-ratio bounded to +-20; the gradient outside is 0."""
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND))


def k3(d: jax.Array) -> jax.Array:
    """exp(-d) - 1 + d without cancellation; never negative, never infinite.

    Near 0 the three terms cancel, by expm1 too: at d = 1e-3 float32 keeps four digits.
    There the series d^2/2 (1 - d/3 (1 - d/4 (...))) is used, whose factors stay
    positive. Below -20 the value stays that of -20 and the gradient is 0.
    """
    d = jnp.maximum(d, -LOG_RATIO_BOUND)
    small = jnp.abs(d) < 0.5
    # Each branch sees only arguments of its own: no inf or nan enters a gradient.
    near, far = jnp.where(small, d, 0.0), jnp.where(small, 1.0, d)
    series = jnp.ones_like(d)
    for factor in _SERIES:
        series = 1.0 - near * factor * series
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(-far) + far)


def take_tokens(x: jax.Array, tokens: jax.Array) -> jax.Array:
    """x[..., token]: [..., V], [...] -> [...]; nan where the token is V or more."""
    return jnp.take_along_axis(x, tokens[..., None], axis=-1)[..., 0]


def at_least_one(count: jax.Array) -> jax.Array:
    """A denominator: an empty mini-batch has sums of 0, and 0 / 1 is its mean."""
    return jnp.maximum(count, 1).astype(jnp.float32)


def token_mean(x: jax.Array, mask: jax.Array, counts: "Counts") -> jax.Array:
    """sum_it m_it x_it / N, N the tokens of the mini-batch."""
    total = jnp.sum(jnp.where(mask, x, 0.0))
    return total / jnp.maximum(counts.tokens, 1).astype(jnp.float32)


def row_means(x: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] -> [B]: each row's mean over its tokens, 0 for a row without any."""
    return jnp.sum(zero_masked(x, mask), axis=1) / at_least_one(jnp.sum(mask, axis=1))


def sequence_mean(x: jax.Array, mask: jax.Array, counts: "Counts") -> jax.Array:
    """1/N sum_i (1/n_i) sum_t m_it x_it, N the sequences of the mini-batch."""
    return jnp.sum(row_means(x, mask)) / at_least_one(counts.sequences)


def sequence_sum_mean(x: jax.Array, mask: jax.Array, counts: "Counts") -> jax.Array:
    """1/N sum_it m_it x_it, N the sequences of the mini-batch."""
    return jnp.sum(zero_masked(x, mask)) / at_least_one(counts.sequences)


def metric_total(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum over the mask, its count), float32 without gradient; any shape."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    return jnp.sum(zero_masked(x, mask)), jnp.sum(mask, dtype=jnp.float32)


def number_of_tokens(fraction: float | jax.Array, mask: jax.Array) -> jax.Array:
    """max(1, floor(fraction N)) as an int32 scalar, N the tokens inside the mask."""
    tokens = jnp.sum(mask, dtype=jnp.float32)
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
