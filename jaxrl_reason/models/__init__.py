"""A decoder-only transformer of the Llama / Qwen family, its parameters and cache."""

from jaxrl_reason.models.config import TransformerConfig
from jaxrl_reason.models.decode_step import PrefixCache, prefill
from jaxrl_reason.models.lora import (
    LORA_TARGETS,
    LoraSettings,
    abstract_lora,
    init_lora,
    lora_axes,
    merge_lora,
    with_lora,
)
from jaxrl_reason.models.params import (
    Model,
    Params,
    abstract_params,
    init_params,
    param_axes,
    unembedding,
)
from jaxrl_reason.models.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
)
from jaxrl_reason.models.transformer import Transformer, ValueModel

__all__ = [
    "LORA_TARGETS",
    "LinearScaling",
    "Llama3Scaling",
    "LoraSettings",
    "Model",
    "Params",
    "PrefixCache",
    "RopeScaling",
    "Transformer",
    "TransformerConfig",
    "ValueModel",
    "YarnScaling",
    "abstract_lora",
    "abstract_params",
    "init_lora",
    "init_params",
    "lora_axes",
    "merge_lora",
    "param_axes",
    "prefill",
    "unembedding",
    "with_lora",
]
