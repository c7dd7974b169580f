"""One loader for every kind of tokenizer, and its inverse."""

import json
from pathlib import Path
from typing import Any

from jaxrl_reason.text.folder import load_folder_tokenizer
from jaxrl_reason.text.gguf_tokenizer import load_gguf_tokenizer
from jaxrl_reason.text.sentencepiece_model import load_sentencepiece
from jaxrl_reason.text.text_tokenizer import TextTokenizer


def load_tokenizer(
    path: Path | str,
    *,
    vocab_size: int | None = None,
    pad_token_id: int | None = None,
) -> TextTokenizer:
    """The tokenizer of a model.

    Args:
      path: a Hugging Face folder, its tokenizer.json, a .gguf or a .model file.
      vocab_size: size of the model's embedding, if larger than the vocabulary.
      pad_token_id: for padding; by default that of the file, or if it names none but
        its EOS token another control token. Any token will do, since rows have
        lengths.

    Returns:
      The tokenizer.

    Raises:
      ValueError: if there is no usable tokenizer at the path; the message names the
      file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"a tokenizer's path must exist, got {path}")
    if path.is_dir():
        return load_folder_tokenizer(
            path, vocab_size=vocab_size, pad_token_id=pad_token_id
        )
    if path.name == "tokenizer.json":
        return load_folder_tokenizer(
            path.parent, vocab_size=vocab_size, pad_token_id=pad_token_id
        )
    if path.suffix == ".gguf":
        return load_gguf_tokenizer(
            path, vocab_size=vocab_size, pad_token_id=pad_token_id
        )
    if path.suffix == ".model":
        return load_sentencepiece(
            path, vocab_size=vocab_size, pad_token_id=pad_token_id
        )
    raise ValueError(
        f"a tokenizer's path must be a folder, tokenizer.json, *.gguf or *.model, got "
        f"{path}"
    )


def save_tokenizer(tokenizer: TextTokenizer, folder: Path | str) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers loads.

    EOS tokens other than the first belong in the model's generation_config.json, which
    `load_tokenizer` reads too.

    Args:
      tokenizer: from `load_tokenizer`.
      folder: where to write; created if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    special_tokens = tokenizer.special_tokens
    named = {
        "bos_token": special_tokens.bos_token_id,
        "eos_token": tokenizer.eos_token_id,
        "pad_token": special_tokens.pad_token_id,
        "unk_token": special_tokens.unk_token_id,
    }
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": special_tokens.add_bos,
        **{
            name: tokenizer.token_bytes(index).decode()
            for name, index in named.items()
            if index is not None
            # Named as a special token, a word that pads would become one in texts.
            and (name != "pad_token" or tokenizer.is_control(index))
        },
    }
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    _write(folder / "tokenizer.json", tokenizer.spec, indent=None)
    _write(folder / "tokenizer_config.json", config, indent=2)


def _write(path: Path, content: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    path.write_text(text, encoding="utf-8")
