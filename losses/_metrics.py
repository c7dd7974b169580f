"""Metrics of objectives that clip in another way than PPO, or not at all."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._numerics import keep
from jaxrl_reason.losses.surrogates import Metrics, policy_metrics


def unclipped_metrics(
    logprobs: ArrayLike, old_logprobs: ArrayLike, mask: ArrayLike
) -> Metrics:
    """`policy_metrics` where nothing is clipped: its clip fractions are 0."""
    live = _checks.flags(mask)
    # Only an advantage with a sign is ever clipped.
    return policy_metrics(logprobs, old_logprobs, jnp.zeros(live.shape), live)


def with_clips(
    metrics: Metrics,
    low: tuple[jax.Array, jax.Array],
    high: tuple[jax.Array, jax.Array],
) -> Metrics:
    """The metrics with clip fractions of another kind."""
    return {**metrics, "clip_frac_low": low, "clip_frac_high": high}


def sequence_total(x: jax.Array, live: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over live sequences of their token means, and the number of sequences."""
    lengths = jnp.sum(live, axis=1)
    means = jnp.sum(keep(x, live), axis=1) / jnp.maximum(lengths, 1)
    total = jax.lax.stop_gradient(jnp.sum(means))
    return total, jnp.sum(lengths > 0, dtype=jnp.float32)
