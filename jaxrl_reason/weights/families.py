"""The families of models that are read: what sets one apart from another.

A new family is an entry here and a case in its test, as long as the transformer
computes it: the fields and tensors that all families share are in `config_fields.py`
and `names.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WINDOW_FIELDS = frozenset(
    {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"}
)


@dataclass(frozen=True)
class Family:
    """One model_type of config.json.

    Attributes:
      model_type: its name there.
      architecture: the class that `architectures` names.
      reads: fields of config.json that this family reads and others do not; in another
        family such a field may only say what its `absent` says.
      absent: what a field means where the file is silent; a field that is in neither
        this nor the file is refused.
      derives_head_dim: head_dim is hidden_size / num_attention_heads if absent.
      derives_kv_heads: num_key_value_heads is num_attention_heads if absent.
      qk_norm: queries and keys are normalised before they are rotated.
      biased_output: `attention_bias` is of the output product too.
      in_gguf: `general.architecture` of GGUF files may be this name.
    """

    model_type: str
    architecture: str
    reads: frozenset[str] = frozenset()
    absent: Mapping[str, Any] = field(default_factory=dict)
    derives_head_dim: bool = True
    derives_kv_heads: bool = False
    qk_norm: bool = False
    biased_output: bool = True
    in_gguf: bool = True

    @property
    def defaults(self) -> dict[str, Any]:
        """`absent`, over what it is in most families."""
        return {**_DEFAULTS, **self.absent}


_DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 0,
}

LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    reads=frozenset({"attention_bias"}),
    derives_kv_heads=True,  # The first Llama models had no grouped heads.
)
MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    reads=frozenset({"sliding_window"}),
    absent={"sliding_window": 4096, "use_sliding_window": True},
    in_gguf=False,  # Written as llama there.
)
QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    reads=WINDOW_FIELDS,
    absent={"attention_bias": True, "sliding_window": 4096, "max_window_layers": 28},
    biased_output=False,
)
QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    reads=WINDOW_FIELDS | {"attention_bias"},
    absent={"sliding_window": 4096, "max_window_layers": 28},
    derives_head_dim=False,
    qk_norm=True,
)
# In the order in which an export tries them.
FAMILIES = {f.model_type: f for f in (LLAMA, MISTRAL, QWEN2, QWEN3)}

# A model that also sees: model_type, architecture, and the family of its text_config.
MULTIMODAL = {"mistral3": ("Mistral3ForConditionalGeneration", MISTRAL)}
