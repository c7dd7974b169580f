"""Settings of the decoder-only transformer."""

from dataclasses import dataclass

from jaxrl_reason.models.rope_scaling import RopeScaling

DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("auto", "chunked", "flash", "plain", "splash")
REMAT_POLICIES = ("none", "full", "dots")


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and numerics of one transformer of the Llama / Qwen family.

    Attributes:
      vocab_size: number of token ids V.
      hidden_size: size D of the residual stream.
      num_layers: number of blocks L.
      num_heads: query heads N.
      num_kv_heads: key and value heads K; divides num_heads.
      head_dim: size H of one head; even, since rotary positions pair its halves.
      mlp_dim: hidden size of the gated feed-forward layer.
      context_length: the largest number of positions that the model supports.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how they are scaled to a longer context; None for no scaling.
      norm_eps: added to the mean square in every RMS norm.
      qk_norm: RMS norm of each query and key head before rotation (Qwen3).
      attention_bias: biases on the query, key and value projections (Qwen2.5).
      attention_output_bias: a bias on the output projection too.
      sliding_window: a token attends to at most this many of the latest tokens,
        including itself; None for all (Mistral 7B 0.1: 4096).
      full_attention_layers: layers, counted from 0, without the sliding window;
        ascending.
      tie_embeddings: the output head is the embedding, transposed.
      dtype: type of activations and products, "float32" or "bfloat16".
      param_dtype: type of the stored parameters.
      matmul_dtype: type that both sides of a product with a matrix are rounded to, its
        sums being float32; None for `dtype`. Fast on a CPU with AMX. A head that a mesh
        splits is left as it is.
      attention: how whole rows attend: "chunked", in blocks of columns; "splash", by
        the kernel for TPUs, or "flash", by the one for GPUs (both interpreted on a CPU,
        which is slow); "plain", which holds the weights of all pairs of columns and is
        the reference; or "auto": splash on a TPU, flash on an NVIDIA GPU from A100 on,
        chunked elsewhere, and plain for rows of at most one block.
      remat: what the backward pass recomputes: "none" keeps every activation, "full"
        keeps the input of each block, "dots" keeps what the products with matrices and
        the attention give.
      scan_unroll: layers per iteration of the scan; more takes longer to compile but
        saves copies (a tenth of a training step of a three-layer model).

    Raises:
      ValueError: a value breaks a rule; the message names field, rule and value.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    context_length: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    qk_norm: bool = False
    attention_bias: bool = False
    attention_output_bias: bool = False
    sliding_window: int | None = None
    full_attention_layers: tuple[int, ...] = ()
    tie_embeddings: bool = True
    dtype: str = "float32"
    param_dtype: str = "float32"
    matmul_dtype: str | None = None
    attention: str = "auto"
    remat: str = "none"
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "scan_unroll",
            "head_dim",
            "mlp_dim",
            "context_length",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads ({self.num_heads}), "
                f"got {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}")
        for name in ("rope_theta", "norm_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be > 0 and finite, got {getattr(self, name)}"
                )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(
                    f"{name} must be one of {DTYPES}, got {getattr(self, name)!r}"
                )
        if self.matmul_dtype not in (None, *DTYPES):
            raise ValueError(
                f"matmul_dtype must be None or one of {DTYPES}, "
                f"got {self.matmul_dtype!r}"
            )
        self._check_window()
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"attention must be one of {ATTENTIONS}, got {self.attention!r}"
            )
        if self.remat not in REMAT_POLICIES:
            raise ValueError(
                f"remat must be one of {REMAT_POLICIES}, got {self.remat!r}"
            )

    def _check_window(self) -> None:
        window, full = self.sliding_window, self.full_attention_layers
        whole = isinstance(window, int) and not isinstance(window, bool)
        if window is not None and (not whole or window < 1):
            raise ValueError(
                f"sliding_window must be None or a whole number >= 1, got {window!r}"
            )
        if window is None and full:
            raise ValueError(
                f"full_attention_layers is for models with a sliding_window, got {full}"
            )
        inside = {layer for layer in full if 0 <= layer < self.num_layers}
        if list(full) != sorted(inside):
            raise ValueError(
                f"full_attention_layers must be ascending layers below num_layers "
                f"({self.num_layers}), got {full}"
            )
