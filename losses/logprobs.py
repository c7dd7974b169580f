"""Log-probabilities and entropies of tokens, from logits or from hidden states.

Full logits are by far the largest array in training. With `chunked_logprobs` they exist
neither in the forward nor in the backward pass: the product with the unembedding is
computed one block of tokens at a time.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._blocks import join_blocks, map_blocks, split_blocks
from jaxrl_reason.losses._math import whole


def token_logprobs(
    logits: ArrayLike, tokens: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Log-probability of each token under its logits.

    log p(y_t) = z_{y_t} / tau - log sum_v exp(z_v / tau), in float32. `tau` is the
    sampling temperature: without it the ratio is not 1 on policy.

    Args:
      logits: [B, T, V], those that predict `tokens`.
      tokens: [B, T] int; one that is none of the vocabulary, such as -100, gets 0 and
        gives no gradient.
      temperature: of the sampler, > 0.

    Returns:
      [B, T] float32.

    Raises:
      ValueError: shapes or types do not fit, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_logprobs
      >>> logits = jnp.array([[[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]])
      >>> logprobs = token_logprobs(logits, jnp.array([[1, 2]]))
      >>> [round(x, 4) for x in logprobs[0].tolist()]
      [-0.4644, -0.0659]
    """
    logits = _checks.floating("logits", logits)
    tokens = _checks.integers("tokens", tokens)
    _check_logits(logits)
    if tokens.shape != logits.shape[:-1]:
        raise ValueError(
            f"tokens must have shape {list(logits.shape[:-1])} like the logits, "
            f"got {list(tokens.shape)}"
        )
    _checks.number("temperature", temperature, above=0)
    sums = _sums(logits / temperature, tokens, None)
    return _results(sums, tokens, logits.shape[-1])[0]


def token_entropy(
    logits: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Entropy of the distribution at each position.

    H = - sum_v p_v log p_v with p = softmax(z / tau), in nats and float32. Logits of
    -inf (forbidden tokens) count 0.

    Args:
      logits: [B, T, V].
      temperature: of the sampler, > 0.

    Returns:
      [B, T] float32, differentiable.

    Raises:
      ValueError: `logits` is not a floating array, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import token_entropy
      >>> even = jnp.zeros((1, 1, 4))
      >>> round(float(token_entropy(even)[0, 0]), 4)
      1.3863
    """
    logits = _checks.floating("logits", logits)
    _check_logits(logits)
    _checks.number("temperature", temperature, above=0)
    tokens = jnp.zeros(logits.shape[:-1], jnp.int32)  # any
    sums = _sums(logits / temperature, tokens, None)
    return _results(sums, tokens, logits.shape[-1])[1]


def chunked_logprobs(
    hidden: ArrayLike,
    unembed: ArrayLike,
    tokens: ArrayLike,
    *,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
    vocab_size: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy of each token without storing all logits.

    With z = hidden @ unembed: log p(y_t) = z_{y_t} / tau - log sum_v exp(z_v / tau) and
    H = - sum_v p_v log p_v, p = softmax(z / tau). Blocks of at most `chunk_size` tokens
    are processed one after the other and each block's logits are recomputed in the
    backward pass, so the largest array has chunk_size * V elements. With B * T <=
    chunk_size the single block keeps its logits. Both results are differentiable in
    `hidden`, `unembed` and `temperature`, in reverse and in forward mode.

    The products are accumulated in float32 and everything after them is float32; the
    gradient of `unembed` is accumulated over the blocks in float32 and rounded to its
    dtype once. More than 32 blocks are added in groups, which takes one more array of
    its size. Batch and tokens are the leading axes of every block, so what is sharded
    over devices stays sharded.

    Args:
      hidden: [B, T, D] states that predict `tokens`, after the final norm.
      unembed: [D, V].
      tokens: [B, T] int; one that is none of the vocabulary, such as -100, gets 0 and
        gives no gradient.
      temperature: of the sampler, > 0.
      chunk_size: static, tokens per block at most.
      vocab_size: static, where `unembed` has columns of padding: those from there on
        take no part in the softmax and get a gradient of 0. None: all V columns count.

    Returns:
      Log-probs [B, T] and entropies [B, T], float32.

    Raises:
      ValueError: shapes or types do not fit, `temperature` <= 0, `chunk_size` < 1, or
        `vocab_size` is not from 1 to V.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import chunked_logprobs, token_entropy
      >>> from jaxrl_reason.losses import token_logprobs
      >>> hidden = jax.random.normal(jax.random.key(0), (2, 3, 4))
      >>> unembed = jax.random.normal(jax.random.key(1), (4, 7))
      >>> tokens = jnp.zeros((2, 3), int)
      >>> logprobs, entropy = chunked_logprobs(hidden, unembed, tokens, chunk_size=2)
      >>> bool(jnp.allclose(logprobs, token_logprobs(hidden @ unembed, tokens)))
      True
      >>> bool(jnp.allclose(entropy, token_entropy(hidden @ unembed)))
      True
    """
    hidden = _checks.floating("hidden", hidden, widen=False)
    unembed = _checks.floating("unembed", unembed, widen=False)
    tokens = _checks.integers("tokens", tokens)
    _checks.same_shape(3, hidden=hidden)
    _checks.same_shape(2, unembed=unembed)
    if hidden.shape[2] != unembed.shape[0] or tokens.shape != hidden.shape[:2]:
        raise ValueError(
            "hidden, unembed and tokens must have shapes [B, T, D], [D, V] and [B, T], "
            f"got {list(hidden.shape)}, {list(unembed.shape)} and {list(tokens.shape)}"
        )
    _checks.number("temperature", temperature, above=0)
    chunk_size = _checks.static_size("chunk_size", chunk_size)
    (batch, length, _), columns = hidden.shape, unembed.shape[1]
    if vocab_size is not None and not 1 <= vocab_size <= columns:
        raise ValueError(f"vocab_size must be from 1 to {columns}, got {vocab_size}")
    wide = jnp.promote_types(jnp.result_type(hidden, unembed), jnp.float32)
    scale = 1.0 / jnp.asarray(temperature, wide)
    hidden, unembed = whole(hidden, 2), whole(unembed, 0)
    if batch * length <= chunk_size:
        sums = _sums(_logits(hidden, unembed, scale, vocab_size), tokens, None)
    else:
        each = _sums_of_blocks(
            split_blocks(hidden, chunk_size),
            unembed,
            split_blocks(tokens, chunk_size),
            scale,
            vocab_size,
        )
        sums = tuple(join_blocks(x, (batch, length), chunk_size) for x in each)
    return _results(sums, tokens, vocab_size or columns)


# In place of -inf, since 0 * inf is nan: its exp is 0.
_NEVER = -1e30
# Of the head's gradient that is held in float32 where the head is bfloat16.
_COLUMNS = 16_384


def _check_logits(logits: jax.Array) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits must have shape [B, T, V], got {list(logits.shape)}")


def _logits(
    hidden: jax.Array, unembed: jax.Array, scale: jax.Array, vocab_size: int | None
) -> jax.Array:
    """[..., D], [D, V] -> [..., V], far below all others from vocab_size on."""
    logits = scale * jnp.einsum(
        "...d,dv->...v", hidden, unembed, preferred_element_type=scale.dtype
    )
    if vocab_size is None:
        return logits
    padding = jnp.where(jnp.arange(unembed.shape[1]) < vocab_size, 0.0, _NEVER)  # [V]
    return logits + jnp.expand_dims(padding, range(logits.ndim - 1))


@jax.custom_jvp
def _sums(
    logits: jax.Array, tokens: jax.Array, top: jax.Array | None
) -> tuple[jax.Array, ...]:
    """z_y, max z, sum w and sum w (z - max z), with w = exp(z - max z).

    [..., V], [...] -> [...] each; `top` is the maximum where these are a part of the
    logits. All results are computed from these, so that a block of logits can be
    discarded at once. Logits of 1000 lose no digits.
    """
    top = jnp.max(logits, axis=-1) if top is None else top
    if jax.typeof(logits).sharding.spec[-1] is None:
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1, mode="clip")
    else:  # no indexing along a sharded vocabulary
        ids = jax.lax.broadcasted_iota(tokens.dtype, logits.shape, logits.ndim - 1)
        at_token = jnp.where(ids == tokens[..., None], logits, 0.0)
        chosen = jnp.sum(at_token, axis=-1, keepdims=True)
    shifted = logits - top[..., None]
    weights = jnp.exp(shifted)
    # 0 * -inf is nan, so a logit of -inf becomes a number.
    weighted = jnp.sum(weights * jnp.maximum(shifted, _NEVER), axis=-1)
    return chosen[..., 0], top, jnp.sum(weights, axis=-1), weighted


@_sums.defjvp
def _slopes(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """[v = y], 0, w_v and w_v (1 + z_v - max z): the maximum cancels in the results."""
    (logits, tokens, top), slope = primals, tangents[0]
    sums = _sums(logits, tokens, top)
    ids = jax.lax.broadcasted_iota(tokens.dtype, logits.shape, logits.ndim - 1)
    chosen = jnp.where(ids == tokens[..., None], slope, 0.0)
    shifted = logits - sums[1][..., None]
    total = jnp.exp(shifted) * slope
    weighted = jnp.exp(shifted) * (1.0 + jnp.maximum(shifted, _NEVER)) * slope
    chosen, total, weighted = (jnp.sum(x, axis=-1) for x in (chosen, total, weighted))
    return sums, (chosen, jnp.zeros_like(sums[1]), total, weighted)


def _results(
    sums: tuple[jax.Array, ...], tokens: jax.Array, vocab_size: int
) -> tuple[jax.Array, jax.Array]:
    """The log-prob of the token, 0 where it is not in the vocabulary, and entropy."""
    chosen, top, total, weighted = sums
    log_total = jnp.log(total)
    known = (tokens >= 0) & (tokens < vocab_size)
    logprobs = jnp.where(known, (chosen - top) - log_total, 0.0)
    return logprobs, log_total - weighted / total


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _sums_of_blocks(
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    scale: jax.Array,
    vocab_size: int | None,
) -> tuple[jax.Array, ...]:
    """`_sums` of one block after the other: [blocks, n, D], [blocks, n]."""
    each: tuple[jax.Array, ...] = jax.lax.map(
        lambda xs: _sums(_logits(xs[0], unembed, scale, vocab_size), xs[1], None),
        (hidden, tokens),
    )
    return each


@_sums_of_blocks.defjvp
def _slopes_of_blocks(
    vocab_size: int | None,
    primals: tuple[jax.Array, ...],
    tangents: tuple[jax.Array, ...],
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    hidden, unembed, tokens, scale = primals
    to_hidden, to_unembed, _, to_scale = tangents
    sums = _sums_of_blocks(*primals, vocab_size)
    parts = _number_of_parts(unembed, scale)
    to_hidden = to_hidden.astype(scale.dtype)
    product = functools.partial(
        jnp.einsum, "...d,dv->...v", preferred_element_type=scale.dtype
    )

    # Nothing of a block is kept for the backward pass, which makes its logits again.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_part(xs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        part, head, to_head = xs  # [], [D, V / parts] twice
        # In reverse: summed over the blocks in float32, then rounded once.
        to_head = to_head.astype(scale.dtype)

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def of_block(xs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            states, to_states, ids, top = xs
            logits = product(states, head)  # [n, V / parts], still without the scale
            slope = product(to_states, head) + product(states, to_head)
            slope = scale * slope + to_scale * logits
            column = jax.lax.broadcasted_iota(ids.dtype, logits.shape, 1)
            known = part + parts * column < (vocab_size or unembed.shape[1])
            logits = jnp.where(known, scale * logits, _NEVER)
            # Of the tokens that are in this part.
            ids = jnp.where(ids % parts == part, ids // parts, -1)
            chosen, _, total, weighted = _slopes((logits, ids, top), (slope,))[1]
            return chosen, total, weighted

        return map_blocks(of_block, (hidden, to_hidden, tokens, sums[1]))

    if parts == 1:
        each = of_part((jnp.zeros((), tokens.dtype), unembed, to_unembed))
    else:
        numbers = jnp.arange(parts, dtype=tokens.dtype)
        split = _split_columns(unembed, parts), _split_columns(to_unembed, parts)
        each = jax.lax.map(of_part, (numbers, *split))
        each = tuple(jnp.sum(x, axis=0) for x in each)
    chosen, total, weighted = each
    return sums, (chosen, jnp.zeros_like(sums[1]), total, weighted)


def _number_of_parts(unembed: jax.Array, scale: jax.Array) -> int:
    """In how many parts of the vocabulary the slope of the head is summed.

    One where it has the type of the sums, or where a mesh with explicit axes splits the
    vocabulary already.
    """
    split = jax.typeof(unembed).sharding.spec[1] is not None
    if split or unembed.dtype == scale.dtype:
        return 1
    return math.ceil(unembed.shape[1] / _COLUMNS)


def _split_columns(x: jax.Array, parts: int) -> jax.Array:
    """[D, V] -> [parts, D, V / parts], padded; column i goes to part i % parts."""
    x = jnp.pad(x, [(0, 0), (0, -x.shape[1] % parts)])
    return jnp.moveaxis(x.reshape(x.shape[0], -1, parts), 2, 0)
