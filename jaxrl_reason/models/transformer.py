"""The decoder-only transformer and its value-head variant."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import Masks, attention_mask, layer_masks
from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.layers import (
    ROWS,
    Block,
    RMSNorm,
    normal,
)
from jaxrl_reason.models.rope import RopeTable, rope_table
from jaxrl_reason.sharding import Constrain, no_constraint


def _rematerialised(remat: str) -> Any:
    if remat == "none":
        return Block
    policies = jax.checkpoint_policies
    policy = policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    # prevent_cse guards against a merge that cannot happen inside a scan.
    return nn.remat(Block, policy=policy, prevent_cse=False, methods=["__call__"])


class Transformer(nn.Module):
    """Tokens in, hidden states out; the losses turn those into log-probs.

    Args:
      config: shape and numerics.
      constrain: called on activations as constrain(x, logical axes).
      output_head: whether an untied output head is declared at all (a value model
        has no use for one).
    """

    config: TransformerConfig
    constrain: Constrain = no_constraint
    output_head: bool = True

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        dtype = jnp.dtype(c.param_dtype)
        self.embedding = self.param(
            "embedding",
            normal(0.02, "vocab", "embed"),
            (c.vocab_size, c.hidden_size),
            dtype,
        )
        scanned = nn.scan(
            _rematerialised(c.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=c.num_layers,
            unroll=min(c.scan_unroll, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
            methods=["__call__", "with_cache"],
        )
        self.layers = scanned(c, self.constrain)
        self.final_norm = RMSNorm(c.norm_eps, c.param_dtype)
        if self.output_head and not c.tie_embeddings:
            self.head = self.param(
                "head",
                normal(c.hidden_size**-0.5, "embed", "vocab"),
                (c.hidden_size, c.vocab_size),
                dtype,
            )

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        branch_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states of whole rows.

        Args:
          tokens: [B, S] token ids.
          positions: [B, S] position of each token in its own sequence.
          segment_ids: [B, S]; 0 is padding. A token attends to earlier columns (and
            itself) of its own segment only.
          branch_ids: [B, S], where several continuations of one text stand in one
            segment: 0 is the text, the others see it and themselves.

        Returns:
          [B, S, D] in the compute type, after the final norm. Finite but meaningless
          at padding.
        """
        x, *inputs = self._inputs(tokens, positions, segment_ids, branch_ids)
        x, _ = self.layers(x, *inputs)  # [B, S, D]
        return self.final_norm(x)

    def with_cache(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        past: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """The same hidden states, with keys and values, each [L, B, S, K, H].

        `past` is keys and values, each [L, Tc, K, H], of Tc tokens that come before
        all rows, at positions from 0 on.
        """
        before = 0 if past is None else past[0].shape[1]  # Tc
        x, rope, masks, kinds = self._inputs(
            tokens, positions, segment_ids, before=before
        )
        x, cache = self.layers.with_cache(x, rope, masks, (kinds, past))
        return self.final_norm(x), cache

    def _inputs(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        branch_ids: jax.Array | None = None,
        before: int = 0,
    ) -> tuple[jax.Array, RopeTable, Masks, jax.Array]:
        c = self.config
        with jax.named_scope("embed"):
            x = embed(self.embedding, tokens, c)  # [B, S, D]
        # Cosines and sines, each [B, S, H/2].
        rope = rope_table(positions, c.head_dim, c.rope_theta, c.rope_scaling)
        causal = attention_mask(segment_ids, branch_ids)  # [B, S, S]
        masks, kinds = layer_masks(positions, causal, c, before)
        return self.constrain(x, ROWS), rope, masks, kinds


def embed(
    embedding: jax.Array, tokens: jax.Array, config: TransformerConfig
) -> jax.Array:
    """Rows of the embedding [V, D] for tokens [...], in the compute type."""
    return jnp.take(embedding, tokens, axis=0).astype(jnp.dtype(config.dtype))


class ValueModel(nn.Module):
    """The transformer with a scalar head in place of the vocabulary.

    Its parameters are {"backbone": a transformer's, "value_head": [D]}, so a policy
    with a tied head can be its starting point. The head starts at zero: the first
    values are 0, not noise.
    """

    config: TransformerConfig
    constrain: Constrain = no_constraint

    def setup(self) -> None:
        """Declare the parameters."""
        c = self.config
        self.backbone = Transformer(c, self.constrain, output_head=False)
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        dtype = jnp.dtype(c.param_dtype)
        self.value_head = self.param("value_head", init, (c.hidden_size,), dtype)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        branch_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Values [B, S] float32; the arguments are those of `Transformer`."""
        hidden = self.backbone(tokens, positions, segment_ids, branch_ids)
        hidden = hidden.astype(jnp.float32)  # [B, S, D]
        return hidden @ self.value_head.astype(jnp.float32)
