"""The settings of a model from the metadata of a .gguf file."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    TransformerConfig,
    YarnScaling,
)
from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.families import FAMILIES, Family
from jaxrl_reason.weights.gguf_file import ROPE_FACTORS, GGUFFile
from jaxrl_reason.weights.hf_config import HFConfig
from jaxrl_reason.weights.special_token_ids import SpecialTokenIds
from jaxrl_reason.weights.untrusted import check_size

ARCHITECTURES = tuple(name for name, family in FAMILIES.items() if family.in_gguf)

# key, after the architecture's name -> field of TransformerConfig
COPIED = {
    "embedding_length": "hidden_size",
    "block_count": "num_layers",
    "attention.head_count": "num_heads",
    "feed_forward_length": "mlp_dim",
    "context_length": "context_length",
}
# Read by rules below.
READ = {
    "vocab_size",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
# These would change the results: only these values are supported.
FIXED = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}
NO_EFFECT = {"rope.scaling.finetuned"}
# For Llama 3 the file has only the resulting factor of each pair; these are the
# settings of all published models.
LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read_gguf_config(file: GGUFFile) -> HFConfig:
    """The settings of a .gguf file.

    Raises:
      WeightsError: the architecture is not supported, or one of its keys is unknown.
    """
    name = file.metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"{file.path}: general.architecture must be one of {ARCHITECTURES}, "
            f"got {name!r}"
        )
    prefix = f"{name}."
    given = {
        key.removeprefix(prefix): value
        for key, value in file.metadata.items()
        if key.startswith(prefix)
    }
    _check_keys(file, prefix, given)
    try:
        model = _model(file, FAMILIES[name], given)
        return HFConfig(model, name, _special(file.metadata))
    except WeightsError:
        raise
    except KeyError as error:
        raise WeightsError(f"{file.path}: {prefix}{error.args[0]} is missing") from None
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(f"{file.path}: {error}") from error


def _check_keys(file: GGUFFile, prefix: str, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key in COPIED or key in READ or key in NO_EFFECT:
            continue
        if key not in FIXED or value not in FIXED[key]:
            raise WeightsError(
                f"{file.path}: {prefix}{key} must be one of {FIXED.get(key, ())}, "
                f"got {value!r:.80}"
            )


def _model(
    file: GGUFFile, family: Family, given: Mapping[str, Any]
) -> TransformerConfig:
    for key in COPIED:
        check_size(f"{family.model_type}.{key}", given[key], file.path)
    copied = {ours: given[theirs] for theirs, ours in COPIED.items()}
    heads = copied["num_heads"]
    head_dim = given.get("attention.key_length", copied["hidden_size"] // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if given.get(key, head_dim) != head_dim:
            raise WeightsError(
                f"{file.path}: {family.model_type}.{key} must be the size of a head, "
                f"{head_dim}, got {given[key]}"
            )
    embedding = file.shapes.get("token_embd.weight", (0,))
    rope_theta = _short(given.get("rope.freq_base", 10000.0))
    return TransformerConfig(
        **copied,
        vocab_size=given.get("vocab_size", embedding[0]),
        num_kv_heads=given.get("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=rope_theta,
        rope_scaling=_scaling(file, given, head_dim, rope_theta),
        norm_eps=_short(given["attention.layer_norm_rms_epsilon"]),
        qk_norm=family.qk_norm,
        attention_bias="blk.0.attn_q.bias" in file.shapes,
        attention_output_bias="blk.0.attn_output.bias" in file.shapes,
        sliding_window=given.get("attention.sliding_window"),
        tie_embeddings="output.weight" not in file.shapes,
    )


def _short(value: float) -> float:
    """The shortest decimal of a float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _scaling(
    file: GGUFFile, given: Mapping[str, Any], head_dim: int, base: float
) -> RopeScaling | None:
    kind = given.get("rope.scaling.type", "none")
    if ROPE_FACTORS in file.shapes:
        if kind != "none":
            raise WeightsError(f"{file.path}: {ROPE_FACTORS} beside scaling {kind!r}")
        return _llama3(file, head_dim, base)
    if kind == "none":
        return None
    factor = _short(given["rope.scaling.factor"])
    if kind == "linear":
        return LinearScaling(factor)
    if kind != "yarn":
        raise WeightsError(
            f"{file.path}: rope.scaling.type must be none, linear or yarn, got {kind!r}"
        )
    original = given.get("rope.scaling.original_context_length")
    fast = _short(given.get("rope.scaling.yarn_beta_fast", 32.0))
    slow = _short(given.get("rope.scaling.yarn_beta_slow", 1.0))
    return YarnScaling(factor, original or given["context_length"], fast, slow)


def _llama3(file: GGUFFile, head_dim: int, base: float) -> Llama3Scaling:
    """The Llama 3 scaling with the factors of the file.

    The factor of a pair is frequency / frequency'.
    """
    if file.shapes[ROPE_FACTORS] != (head_dim // 2,):
        raise WeightsError(
            f"{file.path}: {ROPE_FACTORS} must be {(head_dim // 2,)}, "
            f"got {file.shapes[ROPE_FACTORS]}"
        )
    factors = file.read(ROPE_FACTORS, (slice(0, head_dim // 2),))
    scaling = Llama3Scaling(float(np.max(factors)), **LLAMA3)  # type: ignore[arg-type]
    plain = base ** (-jnp.arange(0, head_dim, 2) / head_dim)
    wanted = np.asarray(plain / scaling.stretch(plain, base))
    if not np.allclose(factors, wanted, rtol=1e-4):
        raise WeightsError(
            f"{file.path}: {ROPE_FACTORS} must be those of a Llama 3 with {LLAMA3}"
        )
    return scaling


def _special(metadata: Mapping[str, Any]) -> SpecialTokenIds:
    def token(name: str) -> int | None:
        return metadata.get(f"tokenizer.ggml.{name}_token_id")

    ends = dict.fromkeys(token(name) for name in ("eos", "eot", "eom"))
    eos = tuple(end for end in ends if end is not None)
    return SpecialTokenIds(token("bos"), eos, token("padding"))
