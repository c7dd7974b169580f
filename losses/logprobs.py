"""Log-probabilities and entropies of tokens, from logits or from hidden states.

Full logits are by far the largest array of training. With `chunked_logprobs` they
exist neither in the forward nor in the backward pass: the product with the unembedding
is made one block of tokens at a time.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import take_tokens


def token_logprobs(
    logits: ArrayLike, tokens: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """Log-probability of each token under its logits.

    log p(y_t) = z_{y_t} / tau - log sum_v exp(z_v / tau), in float32. `tau` is the
    sampling temperature: leave it out and the ratio is not 1 on policy.

    Args:
      logits: [B, T, V], those that predict `tokens`.
      tokens: [B, T] int; an id >= V gives nan.
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
    _checks.positive("temperature", temperature)
    shifted, log_total = _normalise(logits / temperature)
    return take_tokens(shifted, tokens) - log_total


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
    _checks.positive("temperature", temperature)
    shifted, log_total = _normalise(logits / temperature)
    weights = jnp.exp(shifted - log_total[..., None])
    # 0 * -inf is nan, so the factor of a weight of 0 is set first.
    shifted = jnp.where(weights > 0, shifted, 0.0)
    return log_total - jnp.sum(weights * shifted, axis=-1)


def chunked_logprobs(
    hidden: ArrayLike,
    unembed: ArrayLike,
    tokens: ArrayLike,
    *,
    temperature: float | jax.Array = 1.0,
    chunk_size: int = 1024,
    vocab_size: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability and entropy of each token without ever holding all logits.

    With z = hidden @ unembed: log p(y_t) = z_{y_t} / tau - log sum_v exp(z_v / tau) and
    H = - sum_v p_v log p_v, p = softmax(z / tau). Blocks of at most `chunk_size` tokens
    are taken one after the other and each block's logits are computed again in the
    backward pass, so the largest array has chunk_size * V elements. A single block,
    B * T <= chunk_size, keeps its logits instead. Both results are differentiable in
    `hidden` and `unembed` (in reverse mode), not in `temperature`.

    The products are accumulated in float32 and everything after them is float32. The
    batch axis is in front in every block, so one that is spread over devices stays
    spread.

    Args:
      hidden: [B, T, D] states that predict `tokens`, after the final norm.
      unembed: [D, V].
      tokens: [B, T] int; an id >= V gives nan.
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
    hidden, unembed = jnp.asarray(hidden), jnp.asarray(unembed)
    _checks.floating("hidden", hidden), _checks.floating("unembed", unembed)
    tokens = _checks.integers("tokens", tokens)
    _checks.same_shape(3, hidden=hidden)
    _checks.same_shape(2, unembed=unembed)
    if hidden.shape[2] != unembed.shape[0] or tokens.shape != hidden.shape[:2]:
        raise ValueError(
            "hidden, unembed and tokens must have shapes [B, T, D], [D, V] and [B, T], "
            f"got {list(hidden.shape)}, {list(unembed.shape)} and {list(tokens.shape)}"
        )
    _checks.positive("temperature", temperature)
    chunk_size = _checks.static_size("chunk_size", chunk_size)
    columns = unembed.shape[1]
    if vocab_size is not None and not 1 <= vocab_size <= columns:
        raise ValueError(f"vocab_size must be from 1 to {columns}, got {vocab_size}")
    if vocab_size == columns:
        vocab_size = None
    if vocab_size is not None:
        # An id of the padding is as far outside as one beyond it.
        tokens = jnp.where(tokens < vocab_size, tokens, columns)
    blocks = _Blocks.plan(hidden.shape[0], hidden.shape[1], chunk_size)
    scale = jax.lax.stop_gradient(1.0 / jnp.asarray(temperature, jnp.float32))
    logprobs, entropy = _chunked(
        (blocks.number, vocab_size),
        blocks.split(hidden),
        unembed,
        blocks.split(tokens),
        scale,
    )
    return blocks.join(logprobs), blocks.join(entropy)


def _check_logits(logits: jax.Array) -> None:
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits must have shape [B, T, V], got {list(logits.shape)}")


def _normalise(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits minus their maximum [..., V] and the log of the sum of their exp [...]."""
    # The maximum cancels: it takes no part in the gradient. Logits of 1000 lose no
    # digits this way.
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    shifted = logits - top
    return shifted, jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))


class _Blocks(NamedTuple):
    """How [B, T] is split: `down` x `across` blocks of `rows` x `columns` tokens."""

    batch: int
    length: int
    down: int
    across: int
    rows: int
    columns: int

    @classmethod
    def plan(cls, batch: int, length: int, chunk_size: int) -> "_Blocks":
        """Blocks of at most `chunk_size` tokens, of even sizes, split along T first."""
        down = max(1, math.ceil(batch / chunk_size))
        across = max(1, math.ceil(length / max(1, chunk_size // max(1, batch))))
        rows, columns = math.ceil(batch / down), math.ceil(length / across)
        return cls(batch, length, down, across, rows, columns)

    @property
    def number(self) -> int:
        return self.down * self.across

    def split(self, x: jax.Array) -> jax.Array:
        """[B, T, ...] -> [blocks, rows * columns, ...], padded with zeros."""
        size = (self.rows * self.down, self.columns * self.across)
        rest = x.shape[2:]
        pad = [(0, s - n) for s, n in zip(size, x.shape[:2], strict=True)]
        x = jnp.pad(x, pad + [(0, 0)] * len(rest))
        # Row i goes to block i % down: the major part of the batch axis stays in front,
        # so a sharded batch is split inside every device.
        x = x.reshape(self.rows, self.down, self.across, self.columns, *rest)
        x = jnp.moveaxis(x, (1, 2), (0, 1))
        return x.reshape(self.number, self.rows * self.columns, *rest)

    def join(self, x: jax.Array) -> jax.Array:
        """[blocks, rows * columns] -> [B, T]."""
        x = x.reshape(self.down, self.across, self.rows, self.columns)
        x = jnp.moveaxis(x, (0, 1), (1, 2))
        x = x.reshape(self.rows * self.down, self.columns * self.across)
        return x[: self.batch, : self.length]


class _Saved(NamedTuple):
    """What the backward pass of all blocks needs."""

    hidden: jax.Array  # [blocks, n, D]
    unembed: jax.Array  # [D, V]
    tokens: jax.Array  # [blocks, n]
    scale: jax.Array  # []
    log_norm: jax.Array  # [blocks, n] log sum exp of the scaled logits
    entropy: jax.Array  # [blocks, n]
    logits: jax.Array | None  # [n, V] of a single block


# Number of blocks, and of columns of `unembed` before the padding, where there is any.
_Sizes = tuple[int, int | None]
# Of a padded column: finite, since 0 * inf is nan; its exp is 0.
_NEVER = -1e30


def _scaled_logits(
    hidden: jax.Array, unembed: jax.Array, scale: jax.Array, vocab_size: int | None
) -> jax.Array:
    """[n, D], [D, V] -> [n, V] float32."""
    product = jnp.einsum(
        "nd,dv->nv", hidden, unembed, preferred_element_type=jnp.float32
    )
    if vocab_size is None:
        return product * scale
    columns = jax.lax.broadcasted_iota(jnp.int32, product.shape, 1)  # [n, V]
    return jnp.where(columns < vocab_size, product * scale, _NEVER)


class _Sums(NamedTuple):
    """What the results are made of, one number per token."""

    chosen: jax.Array  # logit of the token
    top: jax.Array  # largest logit
    total: jax.Array  # sum of w = exp(logit - top)
    weighted: jax.Array  # sum of w (logit - top)


def _block_sums(logits: jax.Array, tokens: jax.Array) -> _Sums:
    """[n, V], [n] -> [n] each."""
    top = jnp.max(logits, axis=-1)
    shifted = logits - top[..., None]
    weights = jnp.exp(shifted)
    return _Sums(
        chosen=take_tokens(logits, tokens),
        top=top,
        total=jnp.sum(weights, axis=-1),
        weighted=jnp.sum(weights * shifted, axis=-1),
    )


def _forward(
    sizes: _Sizes,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    scale: jax.Array,
) -> tuple[tuple[jax.Array, jax.Array], _Saved]:
    count, vocab_size = sizes
    if count == 1:
        logits = _scaled_logits(hidden[0], unembed, scale, vocab_size)
        sums = _Sums(*(x[None] for x in _block_sums(logits, tokens[0])))
    else:
        logits = None
        sums = jax.lax.map(
            lambda block: _block_sums(
                _scaled_logits(block[0], unembed, scale, vocab_size), block[1]
            ),
            (hidden, tokens),
        )
    # Outside the loop: inside, the logits would be held until the last of these.
    log_total = jnp.log(sums.total)
    logprobs = (sums.chosen - sums.top) - log_total
    entropy = log_total - sums.weighted / sums.total
    log_norm = sums.top + log_total
    saved = _Saved(hidden, unembed, tokens, scale, log_norm, entropy, logits)
    return (logprobs, entropy), saved


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    sizes: _Sizes,
    hidden: jax.Array,
    unembed: jax.Array,
    tokens: jax.Array,
    scale: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    return _forward(sizes, hidden, unembed, tokens, scale)[0]


def _logit_cotangent(
    logits: jax.Array,
    tokens: jax.Array,
    log_norm: jax.Array,
    entropy: jax.Array,
    from_logprobs: jax.Array,
    from_entropy: jax.Array,
) -> jax.Array:
    """Gradient in the scaled logits of one block, [n, V].

    d log p_y / dz_v = [v = y] - p_v and dH / dz_v = - p_v (log p_v + H).
    """
    log_p = logits - log_norm[..., None]
    pull = from_logprobs[..., None] + from_entropy[..., None] * (
        log_p + entropy[..., None]
    )
    index = jax.lax.broadcasted_iota(tokens.dtype, logits.shape, logits.ndim - 1)
    chosen = index == tokens[..., None]
    return jnp.where(chosen, from_logprobs[..., None], 0.0) - jnp.exp(log_p) * pull


def _backward(
    sizes: _Sizes, saved: _Saved, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None, jax.Array]:
    (count, vocab_size), unembed, scale = sizes, saved.unembed, saved.scale

    def block(
        hidden: jax.Array, logits: jax.Array | None, *per_token: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if logits is None:
            logits = _scaled_logits(hidden, unembed, scale, vocab_size)
        pulled = _logit_cotangent(logits, *per_token) * scale
        to_hidden = jnp.einsum("nv,dv->nd", pulled, unembed.astype(jnp.float32))
        to_unembed = jnp.einsum("nd,nv->dv", hidden.astype(jnp.float32), pulled)
        return to_hidden.astype(hidden.dtype), to_unembed

    per_token = (saved.tokens, saved.log_norm, saved.entropy, *cotangents)
    if count == 1:
        to_hidden, to_unembed = block(
            saved.hidden[0], saved.logits, *(x[0] for x in per_token)
        )
        to_hidden = to_hidden[None]
    else:

        def step(
            total: jax.Array, xs: tuple[jax.Array, ...]
        ) -> tuple[jax.Array, jax.Array]:
            to_hidden, to_unembed = block(xs[0], None, *xs[1:])
            return total + to_unembed, to_hidden

        zeros = jnp.zeros(unembed.shape, jnp.float32)
        to_unembed, to_hidden = jax.lax.scan(step, zeros, (saved.hidden, *per_token))
    return to_hidden, to_unembed.astype(unembed.dtype), None, jnp.zeros_like(scale)


_chunked.defvjp(_forward, _backward)
