"""The decoder-only transformer and its value-head variant."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrl_reason.models.attention import (
    ATTENTION,
    Columns,
    layer_windows,
    plain_attention,
    rope_table,
)
from jaxrl_reason.models.chunked_attention import BLOCK
from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.embedding_lookup import look_up
from jaxrl_reason.models.layers import ROWS, Block, RMSNorm, normal
from jaxrl_reason.models.products import PRODUCT
from jaxrl_reason.models.row_attention import attend as attend_rows
from jaxrl_reason.sharding import Constrain, Constrainer, no_constraint

# Keys and values.
KeysValues = tuple[jax.Array, jax.Array]


def _all_but_views(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a result is kept: not if it is its argument in another shape or type.

    Else the scan would keep a copy of each layer's matrices, as they are multiplied.
    """
    views = "reshape", "convert_element_type", "reduce_precision", "sharding_constraint"
    return primitive.name not in views


# What is kept for the backward pass, by the name of `TransformerConfig.remat`.
_KEPT = {
    "none": _all_but_views,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT, ATTENTION),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Transformer(nn.Module):
    """Tokens in, hidden states out; the losses turn these into log-probs.

    Args:
      config: shape and numerics.
      constrain: called on activations as constrain(x, logical axes).
      output_head: whether to declare an untied output head (a value model needs none).
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
        block: Any = nn.remat(
            Block,
            policy=_KEPT[c.remat],
            prevent_cse=False,  # not needed inside a scan
            static_argnums=3,  # attend
        )
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=c.num_layers,
            unroll=min(c.scan_unroll, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
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
          branch_ids: [B, S], if segments hold several continuations of one text: 0 is
            the text; the others attend to it and to themselves.

        Returns:
          [B, S, D] in the compute type, after the final norm. Finite but meaningless
          at padding.
        """
        hidden, _ = self.with_cache(
            tokens, positions, segment_ids, branch_ids, keep=False
        )
        return hidden

    def with_cache(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        branch_ids: jax.Array | None = None,
        *,
        past: KeysValues | None = None,
        keep: bool = True,
    ) -> tuple[jax.Array, KeysValues | None]:
        """The same hidden states, with keys and values, each [L, B, S, K, H].

        `past` is keys and values, each [L, Tc, K, H], of Tc tokens that precede all
        rows, at positions from 0 on; the rows are then all of segment 1. With
        keep=False no keys and values are returned.
        """
        c = self.config
        with jax.named_scope("embed"):
            if isinstance(self.constrain, Constrainer):
                x = look_up(self.constrain, self.embedding, tokens, c.dtype)
            else:
                x = jnp.take(self.embedding, tokens, axis=0).astype(c.dtype)
            x = self.constrain(x, ROWS)  # [B, S, D]
        # Cosines and sines, each [B, S, H/2].
        rope = rope_table(positions, c.head_dim, c.rope_theta, c.rope_scaling)
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        queries = keys_at = Columns(places, segment_ids, positions, branch_ids)
        if past is not None:  # before all rows, of their one segment
            size = past[0].shape[1]
            ages = jnp.broadcast_to(jnp.arange(size)[None], (tokens.shape[0], size))
            branches = None if branch_ids is None else 0 * ages
            before = Columns(ages - size, 0 * ages + 1, ages, branches)
            keys_at = jax.tree.map(
                lambda *pair: jnp.concatenate(pair, axis=1), before, queries
            )
        windows, kinds = layer_windows(c)
        # A row of one block has nothing to save.
        plain = c.attention == "plain" or tokens.shape[1] <= BLOCK

        def attend(q: jax.Array, k: jax.Array, v: jax.Array, of_layer: Any) -> Any:
            kind, past = of_layer
            keys, values = k, v
            if past is not None:
                # Each [B, Tc, K, H], then [B, Tc + S, K, H].
                before = (jnp.broadcast_to(x, (k.shape[0], *x.shape)) for x in past)
                keys, values = (
                    jnp.concatenate(pair, 1)
                    for pair in zip(before, (k, v), strict=True)
                )
            given = q, keys, values, queries, keys_at
            if plain:
                context = plain_attention(*given, jnp.array(windows)[kind])
            else:
                context = attend_rows(
                    *given, windows, kind, way=c.attention, constrain=self.constrain
                )
            return context, (k, v) if keep else None

        x, kept = self.layers(x, rope, attend, (jnp.array(kinds), past))
        return self.final_norm(x), kept


class ValueModel(nn.Module):
    """The transformer with a scalar head in place of the vocabulary.

    Its parameters are {"backbone": a transformer's, "value_head": [D]}, so a policy
    with a tied head can initialise it. The head starts at zero: the first values are 0,
    not noise.
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
