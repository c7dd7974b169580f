"""A random model of one layer with a small tokenizer, in memory and as files."""

from pathlib import Path
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Transformer, TransformerConfig, abstract_params
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.weights import hf_tensors
from tests.text.test_gguf_tokenizer import tokens_of
from tests.weights.test_gguf import gguf_name, interleave

CONFIG = TransformerConfig(
    vocab_size=386,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=16,
    context_length=160,
    norm_eps=1e-5,
)


def random_params() -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype),
        abstract_params(Transformer(CONFIG)),
    )


def write_gguf(path: Path, params: Any, tokenizer: TextTokenizer) -> Path:
    """Weights and tokenizer as llama.cpp's converter writes a Llama 3."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_license("Apache-2.0")
    writer.add_block_count(CONFIG.num_layers)
    writer.add_context_length(CONFIG.context_length)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.mlp_dim)
    writer.add_head_count(CONFIG.num_heads)
    writer.add_head_count_kv(CONFIG.num_kv_heads)
    writer.add_layer_norm_rms_eps(CONFIG.norm_eps)
    writer.add_rope_freq_base(CONFIG.rope_theta)
    tokens, kinds = tokens_of(tokenizer.spec)
    merges = tokenizer.spec["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in hf_tensors(CONFIG, params):
        if ".q_proj" in name:
            tensor = interleave(tensor, CONFIG.num_heads)
        if ".k_proj" in name:
            tensor = interleave(tensor, CONFIG.num_kv_heads)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
