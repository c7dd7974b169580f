"""A tokenizer in a Hugging Face folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxrl_reason.text.added_tokens import added_tokens
from jaxrl_reason.text.backend import Spec
from jaxrl_reason.text.gguf_tokenizer import control_ids
from jaxrl_reason.text.sentencepiece_model import load_sentencepiece
from jaxrl_reason.text.special_tokens import (
    SpecialTokens,
    find_eos_token_ids,
    pad_token,
)
from jaxrl_reason.text.text_tokenizer import TextTokenizer
from jaxrl_reason.text.tokenizer_bounds import LARGEST_JSON

_Config = dict[str, Any]


def load_folder_tokenizer(
    folder: Path | str,
    *,
    vocab_size: int | None = None,
    pad_token_id: int | None = None,
) -> TextTokenizer:
    """The tokenizer of a folder with tokenizer.json, or with tokenizer.model.

    Also reads, if they exist, tokenizer_config.json and special_tokens_map.json (names
    of the special tokens), chat_template.jinja, generation_config.json (every EOS
    token) and config.json (size of the vocabulary).

    Args:
      folder: the folder.
      vocab_size: size of the model's embedding; by default that of config.json.
      pad_token_id: for padding; by default as `load_tokenizer`.

    Returns:
      The tokenizer.

    Raises:
      ValueError: if a file is missing or invalid; the message names it.
    """
    folder = Path(folder)
    config = {
        **_read(folder / "special_tokens_map.json"),
        **_read(folder / "tokenizer_config.json"),
    }
    size = vocab_size or _embedding_size(_read(folder / "config.json"))
    template = _template(folder, config)
    if not (folder / "tokenizer.json").exists():
        model = folder / "tokenizer.model"
        if not model.exists():
            raise ValueError(
                "a folder must hold tokenizer.json or tokenizer.model, got "
                f"{folder} with {sorted(p.name for p in folder.iterdir())[:20]}"
            )
        bos = bool(config.get("add_bos_token", True))
        return load_sentencepiece(
            model,
            chat_template=template,
            add_bos=bos,
            vocab_size=size,
            pad_token_id=pad_token_id,
        )
    path = folder / "tokenizer.json"
    spec = _read(path)
    try:
        special_tokens = _special_tokens(
            folder, spec, config, template or "", pad_token_id
        )
        return TextTokenizer(
            spec, special_tokens, template, vocab_size=size, source=path
        )
    # Files of another layout fail where a part is not as expected.
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def _read(path: Path) -> _Config:
    """The JSON object in a file, empty if there is no file."""
    if not path.exists():
        return {}
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise ValueError(f"{size} bytes, more than {LARGEST_JSON}")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got {type(content).__name__}")
    return content


def _embedding_size(config: _Config) -> int | None:
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def _template(folder: Path, config: _Config) -> str | None:
    path = folder / "chat_template.jinja"
    if path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} must be a text, got: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):  # several under names
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _special_tokens(
    folder: Path, spec: Spec, config: _Config, template: str, pad: int | None
) -> SpecialTokens:
    ids = {token.text: token.id for token in added_tokens(spec)}
    control = control_ids(spec)
    named = {
        name: _id(config.get(f"{name}_token"), name, ids)
        for name in ("bos", "eos", "pad", "unk")
    }
    first = [named["eos"]] if named["eos"] is not None else []
    ends = find_eos_token_ids([*first, *_listed_ends(folder)], control, named["pad"])
    bos = named["bos"]
    return SpecialTokens(
        eos_token_ids=ends,
        pad_token_id=pad_token(named["pad"], ends, control, template, pad),
        bos_token_id=bos,
        unk_token_id=named["unk"],
        add_bos=bos is not None and _adds_bos(spec, config, bos),
    )


def _id(entry: Any, name: str, ids: dict[str, int]) -> int | None:
    text = entry.get("content") if isinstance(entry, dict) else entry
    if text is None:
        return None
    if text not in ids:
        raise ValueError(f"{name}_token must be an added token, got {text!r:.80}")
    return ids[text]


def _listed_ends(folder: Path) -> Iterable[int]:
    for name in ("generation_config.json", "config.json"):
        listed = _read(folder / name).get("eos_token_id")
        if listed is not None:
            return [listed] if isinstance(listed, int) else listed
    return []


def _adds_bos(spec: Spec, config: _Config, bos: int) -> bool:
    """Whether every text begins with BOS, by the config or else the template."""
    if config.get("add_bos_token") is not None:
        return bool(config["add_bos_token"])
    processor = spec.get("post_processor") or {}
    for part in [processor, *processor.get("processors", [])]:
        for step in part.get("single") or []:
            name = step.get("SpecialToken", {}).get("id")
            known = part.get("special_tokens", {}).get(name, {})
            return known.get("ids") == [bos]
    return False
