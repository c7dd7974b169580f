"""Tiny models of every family, as files: what transformers and this library read.

Needs NumPy and safetensors only, so that the script that makes the references runs
where transformers is and JAX is not.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

REFERENCES = Path(__file__).parent / "references"
VOCAB, TOKENS = 96, 24

BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA = {**BASE, "architectures": ["LlamaForCausalLM"], "model_type": "llama"}
MISTRAL = {**BASE, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {**BASE, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
QWEN3 = {**BASE, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}

# As the families publish them; windows, contexts and sizes small enough to act on 24
# tokens.
CASES: dict[str, dict[str, Any]] = {
    "llama2": {**LLAMA, "num_key_value_heads": 4, "rope_scaling": None},
    "llama3": {
        **LLAMA,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama_linear_biases": {
        **LLAMA,
        "head_dim": 12,
        "attention_bias": True,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "smollm2": {
        **LLAMA,
        "hidden_size": 36,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 100000,
        "rope_scaling": None,
        "rope_interleaved": False,
        "is_llama_config": True,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    },
    "mistral_window": {**MISTRAL, "sliding_window": 7, "rope_theta": 10000.0},
    "mistral_small_3_1": {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "model_type": "mistral3",
        "image_token_index": 10,
        "spatial_merge_size": 2,
        "text_config": {
            **{k: v for k, v in MISTRAL.items() if k != "architectures"},
            "head_dim": 16,
            "rope_theta": 1000000000.0,
            "sliding_window": None,
        },
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": 32,
            "patch_size": 16,
        },
    },
    "qwen2_yarn": {
        **QWEN2,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "yarn", **YARN},
        "sliding_window": 7,
        "use_sliding_window": False,
    },
    "qwen2_window": {
        **QWEN2,
        "tie_word_embeddings": True,
        "sliding_window": 5,
        "use_sliding_window": True,
        "max_window_layers": 1,
    },
    "qwen3": {
        **QWEN3,
        "head_dim": 16,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": 2,
    },
    "qwen3_everything": {
        **QWEN3,
        "head_dim": 20,
        "attention_bias": True,
        "sliding_window": 6,
        "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "rope_theta": 10000.0,
            "rope_type": "yarn",
            "beta_fast": 8.0,
            "beta_slow": 0.5,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
            "truncate": False,
            **YARN,
        },
    },
}


def tensors_of(case: str) -> dict[str, np.ndarray]:
    """Tensors under Hugging Face's names, of shapes written down here once more."""
    said = CASES[case]
    c = said.get("text_config", said)
    width, heads, kv_heads = (
        c[name]
        for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    head_dim, inner = c.get("head_dim", width // heads), c["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, width)}
    biases = c.get("attention_bias", False)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows, columns, bias in (
            ("self_attn.q_proj", heads * head_dim, width, biases),
            ("self_attn.k_proj", kv_heads * head_dim, width, biases),
            ("self_attn.v_proj", kv_heads * head_dim, width, biases),
            ("self_attn.o_proj", width, heads * head_dim, biases),
            ("mlp.gate_proj", inner, width, False),
            ("mlp.up_proj", inner, width, False),
            ("mlp.down_proj", width, inner, False),
        ):
            shapes[f"{at}{name}.weight"] = (rows, columns)
            qwen2_bias = c["model_type"] == "qwen2" and name[-6:-5] in "qkv"
            if bias or (qwen2_bias and "self_attn" in name):
                shapes[f"{at}{name}.bias"] = (rows,)
        shapes[f"{at}input_layernorm.weight"] = (width,)
        shapes[f"{at}post_attention_layernorm.weight"] = (width,)
        if c["model_type"] == "qwen3":
            shapes[f"{at}self_attn.q_norm.weight"] = (head_dim,)
            shapes[f"{at}self_attn.k_norm.weight"] = (head_dim,)
    shapes["model.norm.weight"] = (width,)
    if not c.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (VOCAB, width)
    generator = np.random.default_rng(list(CASES).index(case))
    prefix = "language_model." if "text_config" in said else ""
    return {
        prefix + name: _values(name, shape, generator) for name, shape in shapes.items()
    }


def _values(
    name: str, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    noise = generator.standard_normal(shape).astype(np.float32)
    if "norm" in name:
        return 1 + 0.3 * noise
    if name.endswith("bias"):
        return 0.3 * noise
    if "embed" in name:
        return noise
    return (1.5 * shape[1] ** -0.5 * noise).astype(np.float32)


def tokens_of(case: str) -> np.ndarray:
    """[1, 24] token ids; none is the image's."""
    generator = np.random.default_rng(1000 + list(CASES).index(case))
    return generator.integers(11, VOCAB, (1, TOKENS))


def write_folder(case: str, folder: Path, **changes: np.ndarray) -> Path:
    """A Hugging Face folder of one case; changes replace or add tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[case]), encoding="utf-8")
    save_file({**tensors_of(case), **changes}, folder / "model.safetensors")
    return folder
