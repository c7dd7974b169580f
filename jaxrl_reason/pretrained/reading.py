"""A model and its tokenizer, wherever they lie."""

import hashlib
from pathlib import Path
from typing import Any

from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.weights import Pretrained, load_pretrained

# Read of a weight file to tell it from another of its size.
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
    """Tells the files of one model from those of another.

    Names, sizes, and of every file the first and last MiB: a file of many gigabytes is
    not read whole.

    Args:
      path: a file, or a folder whose files are taken, not those of its folders.

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
