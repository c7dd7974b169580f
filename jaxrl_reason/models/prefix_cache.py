"""The prompt's pass: its last hidden state, and its keys and values."""

import flax.struct
import jax
import jax.numpy as jnp

from jaxrl_reason.models.params import Params
from jaxrl_reason.models.transformer import Transformer


@flax.struct.dataclass
class PrefixCache:
    """Keys and values of P prompts, one entry per layer.

    Attributes:
      keys: L arrays [P, K, Tp, H], already rotated.
      values: L arrays [P, K, Tp, H].
      lengths: [P] tokens of each row; columns from there on are padding.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    lengths: jax.Array


def prefill(
    model: Transformer,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    common: PrefixCache | None = None,
) -> tuple[jax.Array, PrefixCache]:
    """Read right-padded prompts once.

    Args:
      model: the transformer.
      params: its parameters.
      tokens: [P, Tp] token ids, each prompt from column 0.
      lengths: [P] tokens of each prompt, from 1 to Tp.
      common: the cache of one row without padding that all prompts begin with;
        `tokens` and `lengths` are then of what follows, and so is the result.

    Returns:
      The hidden state [P, D] of each prompt's last token, and the cache.

    Raises:
      ValueError: the prompts are longer than the model's context_length.
    """
    before = 0 if common is None else common.keys[0].shape[2]
    size, limit = tokens.shape[1], model.config.context_length
    if before + size > limit:
        raise ValueError(
            f"prompts must fit the model's context_length ({limit}), "
            f"got rows of {before + size} tokens"
        )
    columns = jnp.broadcast_to(jnp.arange(size)[None], tokens.shape)  # [P, Tp]
    segments = (columns < lengths[:, None]).astype(jnp.int32)  # [P, Tp]
    past = None if common is None else _stacked(common)
    hidden, (keys, values) = model.apply(
        {"params": params},
        tokens,
        before + columns,
        segments,
        past,
        method="with_cache",
    )
    # [P, D]
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    # [L, P, Tp, K, H] -> [L, P, K, Tp, H]
    keys, values = (part.transpose(0, 1, 3, 2, 4) for part in (keys, values))
    return last, PrefixCache(_layers(keys), _layers(values), lengths)


def _stacked(common: PrefixCache) -> tuple[jax.Array, jax.Array]:
    """Keys and values [L, Tc, K, H] of the one row."""
    keys, values = (
        jnp.stack([layer[0].swapaxes(0, 1) for layer in part])
        for part in (common.keys, common.values)
    )
    return keys, values


def _layers(stacked: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(stacked[i] for i in range(stacked.shape[0]))
