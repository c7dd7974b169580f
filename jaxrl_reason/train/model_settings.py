"""The model of a run: one that is read, or a new one of a given shape."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from jaxrl_reason.models import LoraSettings, TransformerConfig

_SHAPE = re.compile(r"(?P<layers>\d+)x(?P<hidden_size>\d+)", re.ASCII)


@dataclass(frozen=True)
class ModelSettings:
    """The model and its numerics.

    Attributes:
      source: a Hugging Face folder, a .gguf file or a hub id; or the shape of a new
        model: layers x hidden size, such as 3x128.
      head_dim: for a new model: size of a head; divides the hidden size.
      num_kv_heads: for a new model: key and value heads; 0 for as many as query heads.
      mlp_dim: for a new model: hidden size of the feed-forward layer; 0 for 3 x hidden
        size.
      qk_norm: for a new model: an RMS norm of each query and key head.
      dtype: type of activations and products; a CPU trains slower in bfloat16.
      matmul_dtype: type that both sides of products with matrices are rounded to, their
        sums being float32; None for `dtype`. bfloat16 is faster on a CPU with AMX.
      remat: what the backward pass recomputes: nothing, all but the products with
        matrices and the attention, or everything; each takes less memory than the
        previous one, and more time (dots on a CPU less).
      attention: how whole rows attend: by the kernel for TPUs (splash) or for GPUs
        (flash), in blocks of columns (chunked), or with all pairs of columns (plain);
        auto takes the device's kernel, chunked where there is none.
      lora_rank: train low-rank factors of this rank on the frozen model, which
        takes less memory; 0 trains all parameters.
      lora_alpha: the factors' product is scaled by this over the rank.

    Example:
      >>> ModelSettings("2x64").config(vocab_size=50, context_length=100).num_heads
      2
    """

    source: Annotated[str, tyro.conf.arg(name="", metavar="PATH|HUB_ID|LAYERSxSIZE")]
    head_dim: int = 32
    num_kv_heads: int = 0
    mlp_dim: int = 0
    qk_norm: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    matmul_dtype: Literal["bfloat16"] | None = None
    remat: Literal["none", "dots", "full"] = "none"
    attention: Literal["auto", "chunked", "flash", "plain", "splash"] = "auto"
    lora_rank: int = 0
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("model must be a path, a hub id or a shape, got ''")
        for name in ("num_kv_heads", "mlp_dim", "lora_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.is_new:
            # Invalid shapes raise here, before anything is built.
            self.config(vocab_size=2, context_length=1)

    @property
    def is_new(self) -> bool:
        """Whether the model is new, given by its shape."""
        return _SHAPE.fullmatch(self.source) is not None

    @property
    def lora(self) -> LoraSettings | None:
        """The settings of the low-rank factors, if any."""
        return LoraSettings(self.lora_rank, self.lora_alpha) if self.lora_rank else None

    def config(self, vocab_size: int, context_length: int) -> TransformerConfig:
        """The settings of a new transformer.

        Raises:
          ValueError: `source` is not a shape, or not a valid one.
        """
        shape = _SHAPE.fullmatch(self.source)
        if shape is None:
            raise ValueError(f"a new model must have a shape, got {self.source!r}")
        layers, size = int(shape["layers"]), int(shape["hidden_size"])
        if self.head_dim < 1 or size % self.head_dim or not size:
            raise ValueError(
                f"head_dim must divide the hidden size ({size}), got {self.head_dim}"
            )
        heads = size // self.head_dim
        return TransformerConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            hidden_size=size,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=self.num_kv_heads or heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim or 3 * size,
            qk_norm=self.qk_norm,
            dtype=self.dtype,
            matmul_dtype=self.matmul_dtype,
            remat=self.remat,
            attention=self.attention,
            scan_unroll=layers,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint depends on."""
        found: dict[str, Any] = {
            "dtype": self.dtype,
            "lora_rank": self.lora_rank,
            "lora_alpha": self.lora_alpha,
        }
        if self.matmul_dtype is not None:  # checkpoints from before do not have it
            found["matmul_dtype"] = self.matmul_dtype
        if self.is_new:
            config = self.config(vocab_size=2, context_length=1)
            for name in ("hidden_size", "num_layers", "num_heads", "num_kv_heads"):
                found[name] = getattr(config, name)
            found |= {"head_dim": config.head_dim, "mlp_dim": config.mlp_dim}
            found["qk_norm"] = config.qk_norm
        return found
