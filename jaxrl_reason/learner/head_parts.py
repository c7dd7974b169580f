"""Log-probs under a large head that devices share, gathered one part at a time.

The whole head of a large vocabulary, its gradient and that gradient's float32 sums are
the largest arrays of a step whose parameters are split over many devices. Here no
device holds more than one part of the columns: it is gathered, its logits are reduced
to four sums a token, and the backward pass gathers it again, sums its gradient over the
device's tokens and scatters that to the part's owners before the next part.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_reason.sharding import Constrainer

# Columns of a part at most: its products are large, and it is small beside a layer.
PART = 8_192
# In place of -inf, since 0 * inf is nan: its exp is 0.
NEVER = -1e30

# Of each token, over some columns: its own logit z_y (0 if not among them), max z,
# sum w and sum w (z - max z), with w = exp(z - max z). All [n] float32.
Sums = tuple[jax.Array, ...]


def number_of_parts(columns: int) -> int:
    """The fewest parts of at most PART columns, even ones if twice as many can be.

    >>> number_of_parts(152064), 152064 / number_of_parts(152064), number_of_parts(49)
    (22, 6912.0, 1)
    """
    fewest = -(-columns // PART)
    even = (n for n in range(fewest, 2 * fewest) if columns % n == 0)
    return next(even, fewest)


def logprobs_by_parts(
    constrain: Constrainer,
    parts: int,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
    vocab_size: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`chunked_logprobs` of a head that is gathered in parts.

    Args:
      constrain: of the model; axes that split `embed` also split the tokens, those that
        split `vocab` do not.
      parts: number of parts of a shard's columns.
      hidden: [B, T, D].
      unembed: [D, V]; the mesh divides V.
      tokens: [B, T].
      temperature: of the sampler.
      chunk_size: a block has as many logits as so many tokens' over all columns.
      vocab_size: columns from there on are padding; None for none.

    Returns:
      Log-probs [B, T] and entropies [B, T], float32.
    """
    # Devices that share the vocabulary have the same tokens, and their sums add up.
    rows = constrain.sharding(("batch", "columns"), hidden.shape[:2]).spec
    head = constrain.sharding(("embed", "vocab"), unembed.shape).spec
    of_width, of_vocab = constrain.splits(("embed", "vocab"), unembed.shape)
    known = vocab_size or unembed.shape[1]

    def local(h: jax.Array, shard: jax.Array, ids: jax.Array) -> tuple[jax.Array, ...]:
        columns = _split(jnp.arange(shard.shape[1]), parts, fill=-1)  # [parts, c]
        first = jax.lax.axis_index(of_vocab) * shard.shape[1] if of_vocab else 0
        columns = jnp.where(columns < 0, known, columns + first)
        # In float32, so that what is added up to their gradients is.
        wide = _blocks(
            h.reshape(-1, h.shape[-1]).astype(jnp.float32), parts, chunk_size
        )
        ids = _blocks(ids.reshape(-1), parts, chunk_size)  # [blocks, n]

        # Nothing of a part is kept for the backward pass.
        @partial(jax.checkpoint, prevent_cse=False)
        def add(sums: Sums, part: tuple[jax.Array, ...]) -> tuple[Sums, None]:
            w, at = part  # [D / e, c], [c]
            if of_width:
                w = jax.lax.all_gather(w, of_width, axis=0, tiled=True)
            w = w.astype(jnp.float32)
            found = jax.lax.map(
                lambda x: _sums(x[0], x[1], w, at, temperature, known, h.dtype),
                (wide, ids),
            )
            return _merged(sums, found), None

        zeros = jnp.zeros(ids.shape, jnp.float32)
        start = (zeros, jnp.full(ids.shape, NEVER), zeros, zeros)
        sums, _ = jax.lax.scan(
            add, start, (_split(shard.T, parts).swapaxes(1, 2), columns)
        )
        chosen, top, total, weighted = _over_devices(sums, of_vocab)
        log_total = jnp.log(total)
        chosen = jnp.where((ids >= 0) & (ids < known), chosen - top - log_total, 0.0)
        each = chosen, log_total - weighted / total
        size = h.shape[0] * h.shape[1]
        return tuple(x.reshape(-1)[:size].reshape(h.shape[:2]) for x in each)

    found: Any = jax.shard_map(
        local,
        mesh=constrain.mesh,
        in_specs=(rows, head, rows),
        out_specs=(rows, rows),
        check_vma=False,
    )(hidden, unembed, tokens)
    return found[0], found[1]


def _split(x: jax.Array, parts: int, fill: float = 0) -> jax.Array:
    """[n, ...] -> [parts, n / parts, ...], filled up behind."""
    room = [(0, -x.shape[0] % parts)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, room, constant_values=fill).reshape(parts, -1, *x.shape[1:])


def _blocks(x: jax.Array, parts: int, chunk_size: int) -> jax.Array:
    """[n, ...] -> [blocks, m, ...], m <= chunk_size * parts."""
    return _split(x, -(-x.shape[0] // (chunk_size * parts)))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(h: jax.Array, w: jax.Array, dtype: Any) -> jax.Array:
    """[n, D] [D, c] in a smaller type; gradients are not rounded to it."""
    h, w = h.astype(dtype), w.astype(dtype)
    return jnp.einsum("nd,dc->nc", h, w, preferred_element_type=jnp.float32)


def _slopes(dtype: Any, kept: Any, dz: jax.Array) -> tuple[jax.Array, jax.Array]:
    h, w = (x.astype(dtype) for x in kept)
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)
    return product("nc,dc->nd", dz, w), product("nd,nc->dc", h, dz)


_product.defvjp(lambda h, w, dtype: (_product(h, w, dtype), (h, w)), _slopes)


def _sums(
    h: jax.Array,
    ids: jax.Array,
    w: jax.Array,
    columns: jax.Array,
    temperature: float | jax.Array,
    known: int,
    dtype: Any,
) -> Sums:
    """The sums of tokens [n] over columns [c]."""
    logits = _product(h, w, dtype) / temperature  # [n, c]
    logits = jnp.where(columns[None] < known, logits, NEVER)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    chosen = jnp.where(columns[None] == ids[:, None], logits, 0.0)
    weights = jnp.exp(logits - top[:, None])
    # What is not known is no nan.
    weighted = weights * jnp.maximum(logits - top[:, None], NEVER)
    chosen, total, weighted = (jnp.sum(x, axis=-1) for x in (chosen, weights, weighted))
    return chosen, top, total, weighted


def _at(top: jax.Array, sums: Sums) -> Sums:
    """The same sums from another maximum."""
    chosen, old, total, weighted = sums
    scale = jnp.exp(old - top)
    return chosen, top, scale * total, scale * (weighted + (old - top) * total)


def _merged(one: Sums, other: Sums) -> Sums:
    top = jnp.maximum(one[1], other[1])
    (a, _, b, c), (d, _, e, f) = _at(top, one), _at(top, other)
    return a + d, top, b + e, c + f


def _over_devices(sums: Sums, names: tuple[str, ...]) -> Sums:
    """Merged over devices that have other columns for the same tokens."""
    if not names:
        return sums
    top = jax.lax.pmax(jax.lax.stop_gradient(sums[1]), names)
    chosen, _, total, weighted = _at(top, sums)
    chosen, total, weighted = jax.lax.psum((chosen, total, weighted), names)
    return chosen, top, total, weighted
