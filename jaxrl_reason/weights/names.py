"""The table of each array's names: here, in Hugging Face and in GGUF files."""

from dataclasses import dataclass

LAYERS = "layers"
MERGED = "*"


@dataclass(frozen=True)
class Row:
    """One array of the model, and the tensor that has it (or one layer of it).

    Attributes:
      ours: path in the tree of parameters.
      hugging_face: name of the tensor in safetensors, {} is the layer.
      gguf: name of the tensor in GGUF.
      axes: logical axes of the tensor, in order. `a*b` is one dimension in which b
        varies fastest; - has no name.
      rotary: whether rows of a head are rotated, so that files of GGUF's llama
        architecture have them in another order.
    """

    ours: str
    hugging_face: str
    gguf: str
    axes: str
    rotary: bool = False

    @property
    def stacked(self) -> bool:
        """Whether our array has all layers and the files have one tensor per layer."""
        return self.ours.startswith(LAYERS + "/")


def _layer(
    ours: str, hugging_face: str, gguf: str, axes: str, *, rotary: bool = False
) -> Row:
    return Row(
        f"{LAYERS}/{ours}",
        f"model.layers.{{}}.{hugging_face}",
        f"blk.{{}}.{gguf}",
        axes,
        rotary,
    )


# A model's rows, their shapes, types and order of axes are declared by its modules
# (models/params.py); a row only gives the array's place in files. fmt: off
TABLE = (
    Row("embedding", "model.embed_tokens.weight", "token_embd.weight", "vocab embed"),
    _layer("attention_norm/scale", "input_layernorm.weight", "attn_norm.weight", "-"),
    _layer(
        "attention/query",
        "self_attn.q_proj.weight",
        "attn_q.weight",
        "heads*head_dim embed",
        rotary=True,
    ),
    _layer(
        "attention/query_bias",
        "self_attn.q_proj.bias",
        "attn_q.bias",
        "heads*head_dim",
        rotary=True,
    ),
    _layer(
        "attention/query_norm/scale",
        "self_attn.q_norm.weight",
        "attn_q_norm.weight",
        "-",
    ),
    _layer(
        "attention/key",
        "self_attn.k_proj.weight",
        "attn_k.weight",
        "kv_heads*head_dim embed",
        rotary=True,
    ),
    _layer(
        "attention/key_bias",
        "self_attn.k_proj.bias",
        "attn_k.bias",
        "kv_heads*head_dim",
        rotary=True,
    ),
    _layer(
        "attention/key_norm/scale", "self_attn.k_norm.weight", "attn_k_norm.weight", "-"
    ),
    _layer(
        "attention/value",
        "self_attn.v_proj.weight",
        "attn_v.weight",
        "kv_heads*head_dim embed",
    ),
    _layer(
        "attention/value_bias",
        "self_attn.v_proj.bias",
        "attn_v.bias",
        "kv_heads*head_dim",
    ),
    _layer(
        "attention/output",
        "self_attn.o_proj.weight",
        "attn_output.weight",
        "embed heads*head_dim",
    ),
    _layer(
        "attention/output_bias", "self_attn.o_proj.bias", "attn_output.bias", "embed"
    ),
    _layer("mlp_norm/scale", "post_attention_layernorm.weight", "ffn_norm.weight", "-"),
    _layer("mlp/gate", "mlp.gate_proj.weight", "ffn_gate.weight", "mlp embed"),
    _layer("mlp/up", "mlp.up_proj.weight", "ffn_up.weight", "mlp embed"),
    _layer("mlp/down", "mlp.down_proj.weight", "ffn_down.weight", "embed mlp"),
    Row("final_norm/scale", "model.norm.weight", "output_norm.weight", "-"),
    Row("head", "lm_head.weight", "output.weight", "vocab embed"),
)
# fmt: on
ROWS = {row.ours: row for row in TABLE}
