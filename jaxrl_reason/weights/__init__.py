"""Weights of published models: Hugging Face folders in and out, GGUF files in."""

from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.hf_config import HFConfig, hf_fields, read_hf_config
from jaxrl_reason.weights.hf_export import export_hf, hf_tensors
from jaxrl_reason.weights.hub import find_model
from jaxrl_reason.weights.pretrained import Pretrained, load_pretrained
from jaxrl_reason.weights.special_token_ids import SpecialTokenIds

__all__ = [
    "HFConfig",
    "Pretrained",
    "SpecialTokenIds",
    "WeightsError",
    "export_hf",
    "find_model",
    "hf_fields",
    "hf_tensors",
    "load_pretrained",
    "read_hf_config",
]
