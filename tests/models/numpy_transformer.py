"""The transformer written out in NumPy, one sequence and one head at a time."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Transformer, TransformerConfig, init_params

TINY = TransformerConfig(
    vocab_size=37,
    hidden_size=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=40,
    context_length=64,
)
VARIANTS = {
    "grouped": TINY,
    "multi_head": replace(TINY, num_kv_heads=4),
    "one_kv_head": replace(TINY, num_kv_heads=1),
    "qwen2": replace(TINY, attention_bias=True, rope_theta=1e6, norm_eps=1e-5),
    "qwen3": replace(TINY, qk_norm=True, tie_embeddings=False),
    "windows": replace(
        TINY, sliding_window=3, full_attention_layers=(0,), attention_output_bias=True
    ),
    "everything": replace(
        TINY, qk_norm=True, attention_bias=True, tie_embeddings=False, head_dim=10
    ),
}


@functools.cache
def build(config: TransformerConfig, seed: int = 0) -> tuple[Transformer, Any]:
    """A model, and parameters in which no array is at its neutral value."""
    model = Transformer(config)

    def noisy(key: jax.Array) -> Any:
        leaves, tree = jax.tree.flatten(init_params(model, key))
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        pairs = zip(leaves, keys, strict=True)
        made = [x + 0.1 * jax.random.normal(k, x.shape, x.dtype) for x, k in pairs]
        return jax.tree.unflatten(tree, made)

    return model, jax.jit(noisy)(jax.random.key(seed))


@functools.cache
def compiled(model: Transformer) -> Callable[..., jax.Array]:
    """The model's forward pass, compiled once a shape for all tests of a file."""
    return jax.jit(model.apply)


def tokens_of(rows: int, size: int, seed: int = 0, vocab: int = 37) -> jax.Array:
    return jax.random.randint(jax.random.key(seed), (rows, size), 0, vocab)


def hidden_of(model: Transformer, params: Any, tokens: jax.Array) -> jax.Array:
    """Hidden states [B, S, D] of full rows, each one sequence."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    segments = jnp.ones_like(tokens)
    return compiled(model)({"params": params}, tokens, positions, segments)


def rope(x: np.ndarray, position: int, base: float) -> np.ndarray:
    """One head [H] at one position: the pair (i, i + H/2) as a complex number."""
    half = x.shape[0] // 2
    turn = np.exp(1j * position * base ** (-np.arange(half) / half))
    turned = (x[:half] + 1j * x[half:]) * turn
    return np.concatenate([turned.real, turned.imag])


def rms_norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * scale


def attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | None = None
) -> np.ndarray:
    """Causal attention of [S, N, H] with as many key heads as query heads."""
    size, heads, head_dim = q.shape
    out = np.zeros_like(q)
    for n in range(heads):
        for t in range(size):
            seen = slice(0 if window is None else max(0, t + 1 - window), t + 1)
            scores = k[seen, n] @ q[t, n] / np.sqrt(head_dim)
            weights = np.exp(scores - scores.max())
            out[t, n] = weights / weights.sum() @ v[seen, n]
    return out


def forward(config: TransformerConfig, params: Any, tokens: Any) -> np.ndarray:
    """Hidden states [S, D] of one sequence, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = p["embedding"][np.asarray(tokens)]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        whole = i in config.full_attention_layers
        x = x + _attend(config, layer, x, None if whole else config.sliding_window)
        y = rms_norm(x, layer["mlp_norm"]["scale"], config.norm_eps)
        gate = y @ layer["mlp"]["gate"]
        inner = gate / (1 + np.exp(-gate)) * (y @ layer["mlp"]["up"])
        x = x + inner @ layer["mlp"]["down"]
    return rms_norm(x, p["final_norm"]["scale"], config.norm_eps)


def _attend(
    config: TransformerConfig, layer: Any, x: np.ndarray, window: int | None
) -> np.ndarray:
    weights = layer["attention"]
    y = rms_norm(x, layer["attention_norm"]["scale"], config.norm_eps)
    q, k, v = (
        np.einsum("sd,dnh->snh", y, weights[n]) for n in ("query", "key", "value")
    )
    if config.attention_bias:
        q, k, v = (
            q + weights["query_bias"],
            k + weights["key_bias"],
            v + weights["value_bias"],
        )
    if config.qk_norm:
        q = rms_norm(q, weights["query_norm"]["scale"], config.norm_eps)
        k = rms_norm(k, weights["key_norm"]["scale"], config.norm_eps)
    for t in range(x.shape[0]):
        q[t] = [rope(head, t, config.rope_theta) for head in q[t]]
        k[t] = [rope(head, t, config.rope_theta) for head in k[t]]
    # Every query head gets a copy of its key-value head: plain multi-head attention.
    repeat = config.num_heads // config.num_kv_heads
    k, v = (np.repeat(part, repeat, axis=1) for part in (k, v))
    y = np.einsum("snh,nhd->sd", attention(q, k, v, window), weights["output"])
    return y + weights["output_bias"] if config.attention_output_bias else y
