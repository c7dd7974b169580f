"""The parts of a transformer block, which declare each array's logical axes."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import RopeTable, apply_rope
from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.products import product, product_with_rows
from jaxrl_reason.sharding import Constrain, Constrainer, no_constraint

# (q [B, S, N, H], k [B, S, K, H], v, per-layer input)
# -> (context [B, S, N, H], per-layer output)
Attend = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]

HEADS = ("batch", "columns", "heads", None)
KV_HEADS = ("batch", "columns", "kv_heads", None)
HIDDEN = ("batch", "columns", "mlp")
# The residual stream, and what a layer's first products read of it.
ROWS = ("batch", "sequence", "residual")
INPUTS = ("batch", "columns", "residual")
# Suffixes of the names of the low-rank factors a and b of a matrix.
FACTORS = ("_lora_a", "_lora_b")
# The collection in which decoding gives these matrices transposed, [out, in].
BY_OUTPUT = "by_output"
LARGE_MATRICES = frozenset({"gate", "up", "down"})


def normal(stddev: float, *axes: str | None) -> Callable[..., Any]:
    """A normal initialiser with the logical axes of its array."""
    return nn.with_logical_partitioning(nn.initializers.normal(stddev), axes)


def project(
    module: nn.Module, name: str, matrix: jax.Array, rows: jax.Array
) -> jax.Array:
    """x w, or x w + (x a) b if there are low-rank factors for the matrix.

    The factors are only read here; `models/lora.py` creates them. The product a b is
    never formed, and so is no gradient of its size.

    Args:
      module: the one that declares the matrix.
      name: of the matrix.
      matrix: [in, out..] or [in.., out].
      rows: [n, in] x.

    Returns:
      [n, out] in the type of `rows`.
    """
    size, narrow = rows.shape[1], module.config.matmul_dtype
    if name in LARGE_MATRICES and module.has_variable(BY_OUTPUT, name):
        y = product_with_rows(rows, module.get_variable(BY_OUTPUT, name), narrow)
    else:
        y = product(rows, matrix.reshape(size, -1), narrow)  # [n, out]
    a, b = (module.get_variable("params", name + suffix) for suffix in FACTORS)
    if a is None:
        return y
    a, b = a.astype(rows.dtype), b.astype(rows.dtype)
    inner = rows @ a.reshape(size, -1)  # [n, r]
    return y + inner @ b.reshape(-1, y.shape[1])  # [n, out]


def cast_slice(x: jax.Array, dtype: Any) -> jax.Array:
    """`x.astype(dtype)` of one layer's part of a stack, cast where it is used.

    Of a plain cast the compiler for TPUs makes one of the whole stack, before the loops
    over micro-batches and layers, and holds both: half as many bytes again as the
    parameters. It leaves `reduce_precision` in place, after which the numbers are those
    of the smaller type.

    Args:
      x: float32 or bfloat16, of any shape.
      dtype: one of these.

    Example:
      >>> cast_slice(jnp.float32([1.0, 1.0 + 2**-8, 3e38]), jnp.bfloat16)
      Array([1, 1, 3.00406e+38], dtype=bfloat16)
    """
    if x.dtype == jnp.float32 and dtype == jnp.bfloat16:
        x = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return x.astype(dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32.

    Source: arXiv 1910.07467, equation 4.
    """

    eps: float
    param_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises x [..., D]; the result has the type of x."""
        init = nn.with_logical_partitioning(nn.initializers.ones, (None,))
        scale = self.param("scale", init, (x.shape[-1],), jnp.dtype(self.param_dtype))
        wide = x.astype(jnp.float32)  # [..., D]
        # [..., 1]
        inverse = jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
        return (wide * inverse * scale).astype(x.dtype)


class Attention(nn.Module):
    """Projections, optional norms, rotary positions and an `attend` function."""

    config: TransformerConfig
    constrain: Constrain

    def setup(self) -> None:
        """Declares the parameters."""
        c = self.config
        dtype = jnp.dtype(c.param_dtype)
        into = normal(c.hidden_size**-0.5, "embed", "heads", "head_dim")
        kv_into = normal(c.hidden_size**-0.5, "embed", "kv_heads", "head_dim")
        # Scaled down with the depth, so that the residual stream keeps its scale.
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
        self, x: jax.Array, rope: RopeTable, attend: Attend, of_layer: Any
    ) -> tuple[jax.Array, Any]:
        """Attention of x [B, S, D].

        Returns:
          The result [B, S, D], and the second result of `attend`.
        """
        c = self.config
        heads = {}
        rows = x.reshape(-1, c.hidden_size)  # [B*S, D]
        for name, matrix, of in (
            ("query", self.query, "heads"),
            ("key", self.key, "kv_heads"),
            ("value", self.value, "kv_heads"),
        ):
            # Gathered where it is multiplied: left to choose, the compiler may gather
            # the activations of all devices in place of it or its gradient.
            matrix = self.constrain(cast_slice(matrix, x.dtype), ("residual", of, None))
            y = project(self, name, matrix, rows)  # [B*S, N*H]
            y = y.reshape(*x.shape[:2], *matrix.shape[1:])  # [B, S, N, H]
            if c.attention_bias:
                y = y + self.biases[name].astype(x.dtype)[None, None]
            heads[name] = y
        q = self.constrain(heads["query"], HEADS)  # [B, S, N, H]
        k, v = heads["key"], heads["value"]  # [B, S, K, H]
        if c.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = apply_rope(q, rope), apply_rope(k, rope)
        if isinstance(self.constrain, Constrainer):
            # Devices that share a head have a copy of it each, and nothing to send.
            parts = self.constrain.split("kv_heads")
            copies = math.lcm(c.num_kv_heads, parts) // c.num_kv_heads
            k, v = (
                self.constrain(jnp.repeat(x, copies, axis=2), KV_HEADS) for x in (k, v)
            )
        context, kept = attend(q, k, v, of_layer)
        context = self.constrain(context, HEADS)  # [B, S, N, H]
        rows = context.reshape(-1, c.num_heads * c.head_dim)  # [B*S, N*H]
        out = self.constrain(
            cast_slice(self.output, x.dtype), ("heads", None, "residual")
        )
        y = project(self, "output", out, rows).reshape(x.shape)  # [B, S, D]
        if c.attention_output_bias:
            y = y + self.output_bias.astype(x.dtype)[None, None]
        return y, kept


class GatedMLP(nn.Module):
    """(silu(x gate) * (x up)) down. Source: arXiv 2002.05202, equation 6."""

    config: TransformerConfig
    constrain: Constrain = no_constraint

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer to x [B, S, D]."""
        c = self.config
        dtype = jnp.dtype(c.param_dtype)
        into = normal(c.hidden_size**-0.5, "embed", "mlp")
        out = normal((c.mlp_dim * 2 * c.num_layers) ** -0.5, "mlp", "embed")
        gate = self.param("gate", into, (c.hidden_size, c.mlp_dim), dtype)
        up = self.param("up", into, (c.hidden_size, c.mlp_dim), dtype)
        down = self.param("down", out, (c.mlp_dim, c.hidden_size), dtype)
        # In two dimensions: with three, XLA's CPU backend transposes the gradients of
        # the hidden activations with strided reads, which doubles the layer's time.
        rows = x.reshape(-1, c.hidden_size)  # [B*S, D]
        gate, up = (
            self.constrain(cast_slice(w, x.dtype), ("residual", "mlp"))
            for w in (gate, up)
        )
        inner = jax.nn.silu(project(self, "gate", gate, rows))  # [B*S, F]
        inner *= project(self, "up", up, rows)
        inner = self.constrain(inner.reshape(*x.shape[:-1], -1), HIDDEN)  # [B, S, F]
        inner = inner.reshape(-1, c.mlp_dim)  # [B*S, F]
        down = self.constrain(cast_slice(down, x.dtype), ("mlp", "residual"))
        return project(self, "down", down, inner).reshape(x.shape)  # [B, S, D]


class Block(nn.Module):
    """One pre-norm layer: attention and feed-forward, each added to x."""

    config: TransformerConfig
    constrain: Constrain

    @nn.compact
    def __call__(
        self, x: jax.Array, rope: RopeTable, attend: Attend, of_layer: Any
    ) -> tuple[jax.Array, Any]:
        """Applies the layer to x [B, S, D].

        Args:
          x: [B, S, D].
          rope: cosines and sines of each token's position, each [B, S, H/2].
          attend: the attention function.
          of_layer: per-layer input of `attend`.

        Returns:
          The result [B, S, D], and the second result of `attend`.
        """
        c = self.config
        with jax.named_scope("attention"):
            y = RMSNorm(c.norm_eps, c.param_dtype, name="attention_norm")(x)
            # First as it was, so that what is sent is in the compute type.
            y = self.constrain(self.constrain(y, ROWS), INPUTS)
            attention = Attention(c, self.constrain, name="attention")
            y, kept = attention(y, rope, attend, of_layer)
            x = self.constrain(x + y, ROWS)  # [B, S, D]
        with jax.named_scope("mlp"):
            y = RMSNorm(c.norm_eps, c.param_dtype, name="mlp_norm")(x)
            y = self.constrain(self.constrain(y, ROWS), INPUTS)
            mlp = GatedMLP(c, self.constrain, name="mlp")
            x = self.constrain(x + mlp(y), ROWS)  # [B, S, D]
        return x, kept
