"""Mean and variance over what is live, exact where nothing varies."""

import jax
import jax.numpy as jnp

from jaxrl_reason.losses._numerics import keep


def check_ddof(ddof: int) -> None:
    """0 for the population's variance, 1 for the sample's."""
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")


def moments(x: jax.Array, live: jax.Array, ddof: int) -> tuple[jax.Array, jax.Array]:
    """`x` less its mean over the live entries, and their variance.

    Both are exactly 0 where all live entries are equal, which plain float32 sums do not
    give. Entries that are not live get 0, and so does everything where none is live.
    """
    check_ddof(ddof)
    count = jnp.sum(live, dtype=jnp.int32)
    low = jnp.min(x, where=live, initial=jnp.inf)
    high = jnp.max(x, where=live, initial=-jnp.inf)
    # Less the minimum first: a common offset costs no digits.
    x = keep(x - jnp.where(count > 0, low, 0.0), live)
    mean = jnp.sum(x) / jnp.maximum(count, 1)
    centred = jnp.where(live & (high != low), x - mean, 0.0)
    return centred, jnp.sum(centred**2) / jnp.maximum(count - ddof, 1)


def deviation(variance: jax.Array, eps: float | jax.Array) -> jax.Array:
    """sqrt(variance) + eps to divide by; 1 where nothing varies."""
    # Not variance > 0, which would turn a nan into a 1.
    return jnp.where(variance == 0, 1.0, jnp.sqrt(variance) + eps)
