"""Which blocks of columns see which, read from what stands in them."""

from functools import partial

import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import Columns

LARGE = 2**29  # beyond any place or position


def block_sight(
    queries: Columns, keys: Columns, window: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """What blocks of queries see of blocks of keys, by their least and most numbers.

    Args:
      queries: in blocks of b columns, each [Nq, B, b].
      keys: in blocks of b columns, each [Nk, B, b]; b need not be the same.
      window: [] how many positions a query looks back, its own among them.

    Returns:
      Two tables [Nq, Nk, B] bool: where a query may see a key, False only if none
      does; and where every query surely sees every key.
    """
    # Each [Nq, 1, B] or [1, Nk, B].
    q_least, q_most = jax.tree.map(lambda x: x[:, None], _extremes(queries))
    k_least, k_most = jax.tree.map(lambda x: x[None], _extremes(keys))
    some = k_least.segments <= q_most.segments
    some &= q_least.segments <= k_most.segments
    some &= k_least.places <= q_most.places
    some &= q_least.positions - k_most.positions < window
    every = (q_least.segments == k_most.segments) & _whole(queries)[:, None]
    every &= _whole(keys)[None] & (k_most.places <= q_least.places)
    every &= q_most.positions - k_least.positions < window
    if keys.branches is not None:
        of_branch = k_least.branches <= q_most.branches
        of_branch &= q_least.branches <= k_most.branches
        some &= (k_least.branches == 0) | of_branch
        same = (q_least.branches == k_most.branches) & (
            q_most.branches == k_least.branches
        )
        every &= (k_most.branches == 0) | same
    return some, every


def _whole(columns: Columns) -> jax.Array:
    """[N, B]: blocks of one segment, without padding."""
    first = columns.segments[..., :1]
    return jnp.all((columns.segments == first) & (first != 0), axis=-1)


def _extremes(columns: Columns) -> tuple[Columns, Columns]:
    """The least and the most of each block, [N, B], padding left out."""
    real = columns.segments != 0
    least, most = (
        jax.tree.map(partial(end, axis=-1, where=real), columns)
        for end in (partial(jnp.min, initial=LARGE), partial(jnp.max, initial=-LARGE))
    )
    return least, most
