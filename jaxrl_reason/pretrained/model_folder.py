"""Exports a model: weights, tokenizer, generation settings and model card."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxrl_reason import __version__
from jaxrl_reason.models import Params, TransformerConfig
from jaxrl_reason.pretrained.model_card import ModelCard, render_card
from jaxrl_reason.pretrained.reading import check_tokenizer
from jaxrl_reason.sampler import SamplingSettings
from jaxrl_reason.text.load import save_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.weights import SpecialTokenIds, export_hf
from jaxrl_reason.weights.hf_export import GENERATION, LARGEST_FILE

UNFINISHED = ".unfinished"


def export_model(
    folder: str | Path,
    config: TransformerConfig,
    params: Params,
    tokenizer: TextTokenizer,
    card: ModelCard,
    *,
    sampling: SamplingSettings | None = None,
    family: str | None = None,
    dtype: str | None = None,
    largest_file: int = LARGEST_FILE,
) -> Path:
    """Writes a complete Hugging Face folder.

    config.json, safetensors, generation_config.json (every EOS token of the tokenizer),
    tokenizer.json and tokenizer_config.json with the chat template, and README.md.
    config.json is written last: a folder without it is incomplete. `load_pretrained`
    and `load_tokenizer` read back the same parameters, ids, chat template and EOS
    tokens.

    Args:
      folder: new or empty; created if missing.
      config: settings of the model.
      params: its parameters.
      tokenizer: of the model.
      card: the contents of README.md.
      sampling: recommended sampling settings, for generation_config.json; their EOS
        tokens are added to the tokenizer's.
      family: see `export_hf`.
      dtype: see `export_hf`.
      largest_file: see `export_hf`.

    Returns:
      The folder.

    Raises:
      ValueError: as `export_hf`; the tokenizer has ids that the model lacks; sampling
      has biases or bans, which the file cannot express.
    """
    folder = Path(folder)
    check_new_folder(folder)
    _check_fits(config, tokenizer, sampling)
    ends = tokenizer.eos_token_ids + (
        () if sampling is None else sampling.eos_token_ids
    )
    inside = export_hf(
        folder / UNFINISHED,
        config,
        params,
        special=SpecialTokenIds(
            tokenizer.bos_token_id, tuple(dict.fromkeys(ends)), tokenizer.pad_token_id
        ),
        family=family,
        dtype=dtype,
        largest_file=largest_file,
    )
    text = (inside / GENERATION).read_text(encoding="utf-8")
    generation = {**json.loads(text), **_sampling_fields(sampling)}
    (folder / GENERATION).write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    (inside / GENERATION).unlink()
    save_tokenizer(tokenizer, folder)
    facts = _facts(config, params, dtype)
    (folder / "README.md").write_text(render_card(card, facts, _versions()), "utf-8")
    # Last: a folder without config.json is incomplete.
    files = sorted(inside.iterdir(), key=lambda path: path.name == "config.json")
    for path in files:
        path.rename(folder / path.name)
    inside.rmdir()
    return folder


def check_new_folder(folder: Path) -> None:
    """Raises for a folder that is not empty.

    Args:
      folder: where to write.

    Raises:
      ValueError: it exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder must be absent or empty, got {folder}")


def _check_fits(
    config: TransformerConfig,
    tokenizer: TextTokenizer,
    sampling: SamplingSettings | None,
) -> None:
    if not isinstance(tokenizer, TextTokenizer):
        raise ValueError(
            f"tokenizer must be one of load_tokenizer's, got {type(tokenizer).__name__}"
        )
    check_tokenizer(tokenizer, config.vocab_size)
    if sampling is None:
        return
    if sampling.logit_bias or sampling.banned_tokens:
        raise ValueError(
            "sampling must have no logit_bias and no banned_tokens, got "
            f"{sampling.logit_bias} and {sampling.banned_tokens}"
        )
    if max(sampling.eos_token_ids, default=0) >= config.vocab_size:
        raise ValueError(
            f"eos_token_ids must be below vocab_size ({config.vocab_size}), got "
            f"{sampling.eos_token_ids}"
        )


def _sampling_fields(sampling: SamplingSettings | None) -> dict[str, Any]:
    """The settings by their names in generation_config.json, also disabled ones."""
    if sampling is None:
        return {}
    fields: dict[str, Any] = {
        "do_sample": sampling.temperature > 0,
        "max_new_tokens": sampling.max_new_tokens,
    }
    if sampling.temperature > 0:
        for name in ("temperature", "top_k", "top_p"):
            fields[name] = getattr(sampling, name)
        if sampling.min_p:
            fields["min_p"] = sampling.min_p
    return fields


def _facts(
    config: TransformerConfig, params: Params, dtype: str | None
) -> dict[str, str]:
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "parameters": f"{count:,} in {config.param_dtype if dtype is None else dtype}",
        "context": f"{config.context_length:,} tokens",
    }


def _versions() -> dict[str, str]:
    return {
        "jaxrl_reason": __version__,
        "jax": jax.__version__,
        "flax": version("flax"),
    }
