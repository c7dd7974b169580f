"""Resolves a user's model to a path: a folder, a .gguf file or a hub id."""

import importlib
import re
from pathlib import Path

from jaxrl_reason.weights.errors import WeightsError

# Weights, settings, tokenizer; no code, and no second copy of the weights.
PATTERNS = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def find_model(path: str | Path, *, revision: str | None = None) -> Path:
    """The folder or .gguf file of a path or hub id.

    A hub id is fetched with huggingface_hub into its cache, which then works without a
    network.

    Args:
      path: a folder, a .gguf file, or "owner/name" where there is no such folder.
      revision: branch, tag or commit of a hub id.

    Raises:
      WeightsError: there is no such model, or the hub cannot be reached; the message
      says what to fetch and where to put it.
    """
    local = Path(path).expanduser()
    if local.is_dir() or (local.is_file() and local.suffix == ".gguf"):
        return local
    if local.exists():
        raise WeightsError(f"{path}: must be a folder or a .gguf file")
    name = str(path)
    if local.suffix == ".gguf" or not HUB_ID.fullmatch(name):
        raise WeightsError(
            f"{path}: there is no such folder or .gguf file, and a hub id is owner/name"
        )
    by_hand = (
        f"on a machine with a network run `hf download {name} --local-dir FOLDER` "
        f"(or fetch {', '.join(PATTERNS[:4])} and the tokenizer's files from "
        f"https://huggingface.co/{name}), and give the path of FOLDER here"
    )
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise WeightsError(
            f"{name}: no such folder, and as a hub id it needs "
            f"`pip install huggingface_hub`; or {by_hand}"
        ) from None
    try:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=PATTERNS)
        )
    except Exception as error:
        # All errors of the package without network, access or such a model.
        raise WeightsError(
            f"{name}: no such folder, and the hub gave {type(error).__name__}: "
            f"{str(error).rstrip('.')}. To do it by hand: {by_hand}"
        ) from error
