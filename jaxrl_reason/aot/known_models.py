"""Shapes of published models by name, so that no file is needed to compile for them.

The numbers are those of each model's config.json on the hub.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.weights.hf_config import read_hf_config
from jaxrl_reason.weights.untrusted import read_json


def _qwen(
    size: tuple[int, int],
    heads: tuple[int, int, int],
    mlp_dim: int,
    *,
    vocab_size: int = 151936,
    context_length: int = 131072,
    tied: bool = False,
    third: bool = False,
) -> TransformerConfig:
    """Qwen2.5, or Qwen3 with `third`: layers and D; N, K and H; F."""
    return TransformerConfig(
        vocab_size=vocab_size,
        num_layers=size[0],
        hidden_size=size[1],
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=heads[2],
        mlp_dim=mlp_dim,
        context_length=context_length,
        rope_theta=1e6,
        qk_norm=third,
        attention_bias=not third,
        tie_embeddings=tied,
    )


KNOWN_MODELS: Mapping[str, TransformerConfig] = MappingProxyType(
    {
        "smollm2-135m": TransformerConfig(
            vocab_size=49152,
            num_layers=30,
            hidden_size=576,
            num_heads=9,
            num_kv_heads=3,
            head_dim=64,
            mlp_dim=1536,
            context_length=8192,
            rope_theta=1e5,
            norm_eps=1e-5,
        ),
        "qwen2.5-0.5b": _qwen(
            (24, 896), (14, 2, 64), 4864, context_length=32768, tied=True
        ),
        "qwen2.5-1.5b": _qwen((28, 1536), (12, 2, 128), 8960, tied=True),
        "qwen2.5-7b": _qwen((28, 3584), (28, 4, 128), 18944, vocab_size=152064),
        "qwen2.5-14b": _qwen((48, 5120), (40, 8, 128), 13824, vocab_size=152064),
        "qwen2.5-32b": _qwen((64, 5120), (40, 8, 128), 27648, vocab_size=152064),
        "qwen3-0.6b": _qwen(
            (28, 1024), (16, 8, 128), 3072, context_length=40960, tied=True, third=True
        ),
        "qwen3-8b": _qwen(
            (36, 4096), (32, 8, 128), 12288, context_length=40960, third=True
        ),
    }
)


def model_shape(source: str) -> TransformerConfig:
    """The settings of a model by its name, its hub id or its folder.

    Args:
      source: such as qwen2.5-32b, Qwen/Qwen2.5-32B, or a folder with a config.json.

    Raises:
      ValueError: there is neither such a name nor such a folder, or a file's fields
        are not supported.

    Example:
      >>> model_shape("Qwen/Qwen2.5-32B").num_layers
      64
    """
    file = Path(source) / "config.json"
    if file.is_file():
        return read_hf_config(read_json(file), file).model
    name = source.rpartition("/")[2].lower()
    if name not in KNOWN_MODELS:
        raise ValueError(
            f"model must be one of {', '.join(KNOWN_MODELS)}, or a folder with a "
            f"config.json, got {source!r}"
        )
    return KNOWN_MODELS[name]
