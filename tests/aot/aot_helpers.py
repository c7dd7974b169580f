"""A tiny run, and a made-up compiled step, for tests without a compiler."""

import json
from pathlib import Path
from typing import Any

from jaxrl_reason.aot.compile_step import CompiledStep, Traffic
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.train.group_settings import SamplerSettings
from jaxrl_reason.train.model_settings import ModelSettings
from jaxrl_reason.train.train_settings import TrainSettings

LAYERS, WIDTH, MLP, HEADS, VOCAB = 3, 64, 128, 4, 256


def tiny_model(folder: Path) -> str:
    """A folder with nothing but a config.json."""
    fields = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": MLP,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


def tiny_run(folder: Path, mesh: str = "fsdp=2,tensor=2", **rl: Any) -> TrainSettings:
    """A run of two mini-batches of two micro-batches of 4 rows of 64 columns."""
    sizes: dict[str, Any] = {
        "prompts_per_step": 8,
        "group_size": 4,
        "updates_per_rollout": 2,
        "prompt_width": 16,
        "max_new_tokens": 16,
        "rows_per_micro_batch": 4,
        "row_width": 64,
        "slots_per_row": 2,
    }
    return TrainSettings(
        mesh=mesh,
        model=ModelSettings(tiny_model(folder), dtype="bfloat16", remat="full"),
        rl=RLSettings(**{**sizes, **rl}),
        sampler=SamplerSettings(slots=0),
    )


def made_up(step: str = "update", **changes: Any) -> CompiledStep:
    """A step whose limits on a v5p are 2, 1 and 0.5 s."""
    fields: dict[str, Any] = {
        "step": step,
        "topology": "v5p:2x2x1",
        "mesh": {"data": 1, "fsdp": 4, "tensor": 1},
        "peak": 5e9,
        "parts": {"parameters": 1e9, "optimizer": 2e9, "temporaries": 2e9},
        "besides": 0.0,
        "fits": True,
        "flops": 2 * 459e12,
        "model_flops": 1.5 * 459e12,
        "memory_bytes": 2765e9,
        "traffic": (Traffic("all-gather", ("fsdp",), 3, 9e9, 6.75e9, 0.5),),
        "tokens": 7000,
        "seconds": 1.0,
        "versions": {"jax": "0", "libtpu": "0"},
    }
    return CompiledStep(**{**fields, **changes})
