"""Rows of an embedding that devices share: what is looked up is sent, not the table.

Each device has some columns of every vector. It looks them up for the tokens of all
devices that share the table with it, and each sends the others what is theirs: the size
of the activations, not of the table; so with the gradient, which is summed where its
columns are. Left to the compiler, every device gathers the table and holds a gradient
of its size.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxrl_reason.sharding import Constrainer


def look_up(
    constrain: Constrainer, table: jax.Array, tokens: jax.Array, dtype: str
) -> jax.Array:
    """The vectors of tokens.

    Args:
      constrain: of the model.
      table: [V, D].
      tokens: [B, S] ids.
      dtype: of the result.

    Returns:
      [B, S, D].
    """
    of_table = constrain.sharding(("vocab", "embed"), table.shape).spec
    of_rows = constrain.sharding(("batch", "columns"), tokens.shape).spec
    of_vocab, of_width = constrain.splits(("vocab", "embed"), table.shape)
    of_tokens = constrain.splits(("batch", "columns"), tokens.shape)
    if not set(of_width) <= {name for names in of_tokens for name in names}:
        # Whole vectors: looking up parts of them, split otherwise than the rows, the
        # compiler would first hold all of them on every device.
        whole = constrain(table, ("vocab", None))
        return jnp.take(whole, tokens, axis=0).astype(dtype)

    def local(part: jax.Array, ids: jax.Array) -> jax.Array:
        if of_width:
            ids = jax.lax.all_gather(ids, of_width, axis=0, tiled=True)  # [e*B, S]
        if of_vocab:
            ids = ids - jax.lax.axis_index(of_vocab) * part.shape[0]
        # [e*B, S, D / e]; a token of another device's part has zeros.
        x = part.at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
        x = x.astype(dtype)
        if of_vocab:
            x = jax.lax.psum(x, of_vocab)
        if of_width:
            x = jax.lax.all_to_all(x, of_width, 0, 2, tiled=True)  # [B, S, D]
        return x

    mapped = jax.shard_map(
        local,
        mesh=constrain.mesh,
        in_specs=(of_table, of_rows),
        out_specs=PartitionSpec(*of_rows, None),
        check_vma=False,
    )
    return mapped(table, tokens)
