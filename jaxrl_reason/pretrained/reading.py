"""Reads a model and its tokenizer from any source."""

import hashlib
from pathlib import Path
from typing import Any

from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.weights import Pretrained, load_pretrained

# The part of a weight file that distinguishes it from others of its size.
_SAMPLE_BYTES = 2**20


def read_model(path: str, **settings: Any) -> tuple[Pretrained, TextTokenizer]:
    """Reads a model's weights and its tokenizer.

    Args:
      path: a Hugging Face folder, a .gguf file or a hub id.
      **settings: as of `load_pretrained`.

    Returns:
      Both.

    Raises:
      ValueError: nothing readable is at the path.
    """
    loaded = load_pretrained(path, **settings)
    return loaded, load_tokenizer(loaded.path, vocab_size=loaded.config.vocab_size)


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
