"""The parts of a transformer block. Every array declares its logical axes here."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import Masks, self_attention
from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.rope import RopeTable, apply_rope
from jaxrl_reason.sharding import Constrain

# (q [B, S, N, H], k [B, S, K, H], v) -> (context [B, S, N, H], whatever to keep)
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]

HEADS = ("batch", "sequence", "heads", None)
ROWS = ("batch", "sequence", None)


def normal(stddev: float, *axes: str | None) -> Callable[..., Any]:
    """A normal initialiser that carries the logical axes of its array."""
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), axes)


def factor_names(matrix: str) -> tuple[str, str]:
    """What the low-rank factors a and b of a matrix are called beside it."""
    return f"{matrix}_lora_a", f"{matrix}_lora_b"


def plus_low_rank(
    module: nn.Module, matrix: str, rows: jax.Array, y: jax.Array
) -> jax.Array:
    """y + (rows a) b where factors lie beside the matrix; y itself where none do.

    They are read, never declared: `models/lora.py` makes them. The product a b is not
    formed, so neither is a gradient of its size.

    Args:
      module: that declares the matrix.
      matrix: its name.
      rows: [n, in], what the matrix was multiplied by.
      y: [n, out], the product.
    """
    a, b = (module.get_variable("params", name) for name in factor_names(matrix))
    if a is None:
        return y
    a, b = a.astype(rows.dtype), b.astype(rows.dtype)
    inner = rows @ a.reshape(rows.shape[1], -1)  # [n, r]
    return y + inner @ b.reshape(-1, y.shape[1])  # [n, out]


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32.

    Source: arXiv 1910.07467, equation 4.
    """

    eps: float
    param_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalise x [..., D]; the result has the type of x."""
        init = nn.with_logical_partitioning(nn.initializers.ones, (None,))
        scale = self.param("scale", init, (x.shape[-1],), jnp.dtype(self.param_dtype))
        wide = x.astype(jnp.float32)  # [..., D]
        # [..., 1]
        inverse = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
        return (wide * inverse * scale).astype(x.dtype)


class Attention(nn.Module):
    """Projections, optional norms and rotary positions around an `attend` function."""

    config: TransformerConfig
    constrain: Constrain

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        dtype = jnp.dtype(c.param_dtype)
        into = normal(c.hidden_size**-0.5, "embed", "heads", "head_dim")
        kv_into = normal(c.hidden_size**-0.5, "embed", "kv_heads", "head_dim")
        # Smaller by the depth, so that the residual stream keeps its scale.
        out_std = (c.num_heads * c.head_dim * 2 * c.num_layers) ** -0.5
        out = normal(out_std, "heads", "head_dim", "embed")
        kv_shape = (c.hidden_size, c.num_kv_heads, c.head_dim)
        self.query = self.param(
            "query", into, (c.hidden_size, c.num_heads, c.head_dim), dtype
        )
        self.key = self.param("key", kv_into, kv_shape, dtype)
        self.value = self.param("value", kv_into, kv_shape, dtype)
        self.output = self.param(
            "output", out, (c.num_heads, c.head_dim, c.hidden_size), dtype
        )
        if c.attention_bias:
            shapes = {"query": c.num_heads, "key": c.num_kv_heads}
            shapes["value"] = c.num_kv_heads
            self.biases = {
                name: self.param(
                    f"{name}_bias",
                    nn.with_logical_partitioning(
                        nn.initializers.zeros,
                        ("heads" if name == "query" else "kv_heads", "head_dim"),
                    ),
                    (heads, c.head_dim),
                    dtype,
                )
                for name, heads in shapes.items()
            }
        if c.attention_output_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
            self.output_bias = self.param("output_bias", zeros, (c.hidden_size,), dtype)
        if c.qk_norm:
            self.query_norm = RMSNorm(c.norm_eps, c.param_dtype)
            self.key_norm = RMSNorm(c.norm_eps, c.param_dtype)

    def __call__(
        self, x: jax.Array, rope: RopeTable, attend: Attend
    ) -> tuple[jax.Array, Any]:
        """Attend from x [B, S, D].

        Returns:
          The result [B, S, D], and what `attend` wants kept.
        """
        q = self.constrain(self._project("query", self.query, x), HEADS)  # [B, S, N, H]
        k = self._project("key", self.key, x)  # [B, S, K, H]
        v = self._project("value", self.value, x)  # [B, S, K, H]
        if self.config.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        context, kept = attend(apply_rope(q, rope), apply_rope(k, rope), v)
        context = self.constrain(context, HEADS)  # [B, S, N, H]
        out = self.output.astype(x.dtype)
        out = out.reshape(-1, x.shape[-1])  # [N*H, D]
        rows = context.reshape(-1, out.shape[0])  # [B*S, N*H]
        y = plus_low_rank(self, "output", rows, rows @ out).reshape(x.shape)
        if self.config.attention_output_bias:
            y = y + self.output_bias.astype(x.dtype)[None, None]
        return y, kept

    def _project(self, name: str, kernel: jax.Array, x: jax.Array) -> jax.Array:
        flat = kernel.astype(x.dtype).reshape(x.shape[-1], -1)  # [D, N*H]
        rows = x.reshape(-1, x.shape[-1])  # [B*S, D]
        y = plus_low_rank(self, name, rows, rows @ flat)  # [B*S, N*H]
        y = y.reshape(*x.shape[:2], *kernel.shape[1:])  # [B, S, N, H]
        if self.config.attention_bias:
            y = y + self.biases[name].astype(x.dtype)[None, None]
        return y


class GatedMLP(nn.Module):
    """(silu(x gate) * (x up)) down. Source: arXiv 2002.05202, equation 6."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply to x [B, S, D]."""
        c = self.config
        dtype = jnp.dtype(c.param_dtype)
        into = normal(c.hidden_size**-0.5, "embed", "mlp")
        out = normal((c.mlp_dim * 2 * c.num_layers) ** -0.5, "mlp", "embed")
        gate = self.param("gate", into, (c.hidden_size, c.mlp_dim), dtype)
        up = self.param("up", into, (c.hidden_size, c.mlp_dim), dtype)
        down = self.param("down", out, (c.mlp_dim, c.hidden_size), dtype)
        # Two dimensions: with three, XLA's CPU backend transposes the gradients of the
        # inner activations with strided reads, which doubles the time of the layer.
        rows = x.reshape(-1, c.hidden_size)  # [B*S, D]
        gated = plus_low_rank(self, "gate", rows, rows @ gate.astype(x.dtype))
        inner = jax.nn.silu(gated)  # [B*S, F]
        inner *= plus_low_rank(self, "up", rows, rows @ up.astype(x.dtype))
        y = plus_low_rank(self, "down", inner, inner @ down.astype(x.dtype))  # [B*S, D]
        return y.reshape(x.shape)


class Block(nn.Module):
    """One layer: attention and feed-forward, each after a norm, each added to x."""

    config: TransformerConfig
    constrain: Constrain

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        self.attention_norm = RMSNorm(c.norm_eps, c.param_dtype)
        self.attention = Attention(c, self.constrain)
        self.mlp_norm = RMSNorm(c.norm_eps, c.param_dtype)
        self.mlp = GatedMLP(c)

    def __call__(
        self, x: jax.Array, rope: RopeTable, masks: Masks, kind: jax.Array
    ) -> tuple[jax.Array, None]:
        """Rows x [B, S, D] under masks[kind]; keeps nothing."""
        mask = jax.lax.select_n(kind, *masks)  # [B, S, T]
        return self.apply_with(
            x, rope, lambda q, k, v: (self_attention(q, k, v, mask), None)
        )

    def with_cache(
        self, x: jax.Array, rope: RopeTable, masks: Masks, of_layer: tuple[Any, Any]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The same, keeping the keys and values, each [B, S, K, H].

        `of_layer` is the layer's kind of mask, and keys and values [Tc, K, H] of
        earlier columns that all rows see, or None.
        """
        kind, past = of_layer
        mask = jax.lax.select_n(kind, *masks)

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            if past is None:
                return self_attention(q, k, v, mask), (k, v)
            # Each [B, Tc, K, H], then [B, Tc + S, K, H].
            before = (jnp.broadcast_to(x, (k.shape[0], *x.shape)) for x in past)
            keys, values = (
                jnp.concatenate(pair, 1) for pair in zip(before, (k, v), strict=True)
            )
            return self_attention(q, keys, values, mask), (k, v)

        return self.apply_with(x, rope, attend)

    def apply_with(
        self, x: jax.Array, rope: RopeTable, attend: Attend
    ) -> tuple[jax.Array, Any]:
        """The one body of the block, whatever does the attending."""
        with jax.named_scope("attention"):
            y, kept = self.attention(self.attention_norm(x), rope, attend)
            x = self.constrain(x + y, ROWS)  # [B, S, D]
        with jax.named_scope("mlp"):
            x = self.constrain(x + self.mlp(self.mlp_norm(x)), ROWS)  # [B, S, D]
        return x, kept
