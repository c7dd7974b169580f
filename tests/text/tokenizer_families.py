"""The tiny tokenizers of the references, as folders and as objects."""

import json
import tempfile
from pathlib import Path
from typing import Any

from jaxrl_reason.text.load import load_tokenizer
from jaxrl_reason.text.text_tokenizer import TextTokenizer

FAMILIES = ("llama3", "qwen", "llama2", "mistral")
FOLDER = Path(__file__).parent / "references"


def reference(name: str) -> dict[str, Any]:
    """What references/make_tokenizer_references.py wrote under a name."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write_folder(name: str, folder: Path) -> dict[str, Any]:
    """Writes a family's tokenizer.json and its config; returns its reference."""
    made = reference(name)
    for file, key in (("tokenizer", "tokenizer"), ("tokenizer_config", "config")):
        path = folder / f"{file}.json"
        path.write_text(json.dumps(made[key]), encoding="utf-8")
    return made


def family(name: str) -> TextTokenizer:
    """A family's tokenizer, loaded."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(name, Path(folder))
        return load_tokenizer(folder)
