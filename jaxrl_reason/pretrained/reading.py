"""Reads a model and its tokenizer from any source."""

import hashlib
from pathlib import Path
from typing import Any

from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.text.tokenizer import Tokenizer
from jaxrl_reason.weights import Pretrained, load_pretrained

# The part of a weight file that distinguishes it from others of its size.
_SAMPLE_BYTES = 2**20


def read_model(
    path: str, *, pad_token_id: int | None = None, **settings: Any
) -> tuple[Pretrained, TextTokenizer]:
    """Reads a model's weights and its tokenizer.

    Args:
      path: a Hugging Face folder, a .gguf file or a hub id.
      pad_token_id: as of `load_tokenizer`.
      **settings: as of `load_pretrained`.

    Returns:
      Both.

    Raises:
      ValueError: nothing readable is at the path, or the tokenizer has ids that the
        model has not.
    """
    loaded = load_pretrained(path, **settings)
    size = loaded.config.vocab_size
    tokenizer = load_tokenizer(loaded.path, vocab_size=size, pad_token_id=pad_token_id)
    check_tokenizer(tokenizer, size, path)
    return loaded, tokenizer


def check_tokenizer(
    tokenizer: Tokenizer, vocab_size: int, path: str | Path = ""
) -> None:
    """Raises for a tokenizer with ids that its model has not.

    Args:
      tokenizer: of the model.
      vocab_size: of the model.
      path: of the model, for messages.

    Raises:
      ValueError: it has; a token was added to one and not to the other.
    """
    if tokenizer.vocab_size > vocab_size:
        where = f"{path}: " if path else ""
        raise ValueError(
            f"{where}the tokenizer must have at most the model's ids ({vocab_size}), "
            f"got {tokenizer.vocab_size}"
        )


def model_digest(path: str | Path) -> str:
    """A digest of the files of a model.

    It covers names, sizes, and the first and last MiB of every file: a file of many
    gigabytes is not read completely.

    Args:
      path: a file, or a folder; files in subfolders are ignored.

    Returns:
      SHA-256 in hexadecimal.
    """
    path = Path(path)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}\n{size}\n".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
            stream.seek(max(size - _SAMPLE_BYTES, 0))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
