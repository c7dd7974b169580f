"""Model families, and every field of their config.json: read, fixed or ignored.

A new family is an entry in this file and a case in its test, if the transformer can
compute it. A file with a field that is in no table is rejected, so that nothing that
changes the model's output is silently ignored.
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
        family such a field may only have the value in its `absent`.
      absent: defaults for fields that are not in the file; a field that is in neither
        is an error.
      derives_head_dim: whether head_dim defaults to hidden_size / num_attention_heads.
      derives_kv_heads: whether num_key_value_heads defaults to num_attention_heads.
      qk_norm: whether queries and keys are normalised before rotation.
      biased_output: whether `attention_bias` includes the output projection.
      in_gguf: whether `general.architecture` of GGUF files may be this name.
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
        """`absent`, on top of the defaults of most families."""
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
    in_gguf=False,  # In GGUF it is written as llama.
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

# Vision-language models: model_type, architecture, and the family of its text_config.
MULTIMODAL = {"mistral3": ("Mistral3ForConditionalGeneration", MISTRAL)}

# field of config.json -> field of TransformerConfig with the same value
COPIED = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "mlp_dim",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}

# Read by separate rules in hf_config.py, in every family.
READ = frozenset(
    {
        "model_type",
        "architectures",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    }
)

# Read only in some families (`Family.reads`).
READ_BY_SOME = WINDOW_FIELDS | {"attention_bias"}

# Fields that would change the output: only these values are supported. None (null)
# means "not set" in all of them.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1.0,),
    "use_mrope": (False,),
    "original_max_position_embeddings": (),
    "quantization_config": (),
    "dual_chunk_attention_config": (),
    "auto_map": (),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "is_decoder": (False,),
    "prefix": (),
    "pruned_heads": ({},),
    "chunk_size_feed_forward": (0,),
}

# Not read by the forward pass.
NO_EFFECT = frozenset(
    {
        # How the file was written, and its dtype: tensors have their own.
        "_name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "is_llama_config",
        "transformers.js_config",
        "unsloth_fixed",
        "unsloth_version",
        # Initialisation, dropout, and splits of a product that do not change results.
        "initializer_range",
        "attention_dropout",
        "pretraining_tp",
        # What the model's function returns, and how.
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "return_dict",
        "return_dict_in_generate",
        "torchscript",
        "use_bfloat16",
        "tf_legacy_loss",
        "_attn_implementation",
        "_attn_implementation_autoset",
        # Heads and tasks that a causal language model does not have.
        "finetuning_task",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "task_specific_params",
        "tokenizer_class",
        "sep_token_id",
        "decoder_start_token_id",
        # Sampling settings of old files; the sampler has its own.
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "remove_invalid_values",
        "repetition_penalty",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)

# Outer fields of a vision-language model: the vision part is not supported, and the
# text part does not read them.
OUTER_NO_EFFECT = NO_EFFECT | {
    "vision_config",
    "vision_feature_layer",
    "image_token_index",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    # Whether the head is tied follows from the tensors of the file.
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
}
