"""Log-probs from hidden states by a head whose products are in a narrower type."""

import jax
import jax.numpy as jnp

from jaxrl_reason.losses import token_entropy, token_logprobs
from jaxrl_reason.models.products import product_with_rows


def narrow_logprobs(
    dtype: str,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
) -> tuple[jax.Array, jax.Array]:
    """`chunked_logprobs` with the products of the head in a narrower type.

    Args:
      dtype: of the sides of the products; see `product`.
      hidden: [M, S, D].
      unembed: [D, V].
      tokens: [M, S].
      temperature: of the sampler.
      chunk_size: tokens per block at most.

    Returns:
      Log-probs [M, S] and entropies [M, S], float32.
    """
    size = tokens.size
    blocks = -(-size // chunk_size)

    def split(x: jax.Array) -> jax.Array:  # [size, ...] -> [blocks, n, ...]
        x = jnp.pad(x, [(0, -size % blocks)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(blocks, -1, *x.shape[1:])

    def of_block(rows: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = product_with_rows(rows, unembed.T, dtype)  # [n, V]
        return (
            token_logprobs(logits, ids, temperature=temperature),
            token_entropy(logits, temperature=temperature),
        )

    rows, ids = split(hidden.reshape(size, -1)), split(tokens.reshape(size))
    if blocks == 1:
        found = of_block(rows[0], ids[0])
    else:
        # A block keeps nothing but its rows, as in `chunked_logprobs`.
        again = jax.checkpoint(of_block, prevent_cse=False)
        found = jax.lax.map(lambda x: again(*x), (rows, ids))
    logprobs, entropy = (x.reshape(-1)[:size].reshape(tokens.shape) for x in found)
    return logprobs, entropy
