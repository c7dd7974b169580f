"""The tokenizer of a GGUF file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxrl_reason.text.backend import Spec
from jaxrl_reason.text.gguf_metadata import read_metadata
from jaxrl_reason.text.pieces import UNUSED, added_entries, pieces_spec
from jaxrl_reason.text.pre_tokenizers import WORD_RULES
from jaxrl_reason.text.special_tokens import (
    SpecialTokens,
    find_eos_token_ids,
    pad_token,
)
from jaxrl_reason.text.text_tokenizer import TextTokenizer

_KEYS = "tokenizer.ggml."


def load_gguf_tokenizer(
    path: Path | str,
    *,
    vocab_size: int | None = None,
    pad_token_id: int | None = None,
) -> TextTokenizer:
    """The tokenizer of a .gguf file: byte-level BPE or sentencepiece.

    Args:
      path: the file.
      vocab_size: size of the model's embedding, if larger than the vocabulary.
      pad_token_id: for padding; by default as `load_tokenizer`.

    Returns:
      The tokenizer, with the file's chat template.

    Raises:
      ValueError: if the file is damaged, or has no tokenizer or one of an unknown kind;
      the message names the file.
    """
    try:
        found = read_metadata(path, "tokenizer.")
        return gguf_tokenizer(
            found, vocab_size=vocab_size, pad_token_id=pad_token_id, source=path
        )
    # Values of other types fail where a part is not as expected.
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{path}: {error}") from error


def gguf_tokenizer(
    metadata: Mapping[str, Any],
    *,
    vocab_size: int | None = None,
    pad_token_id: int | None = None,
    source: Path | str = "",
) -> TextTokenizer:
    """`load_gguf_tokenizer` from the keys and values of a file.

    Args:
      metadata: values by key; those with the prefix `tokenizer.` are read.
      vocab_size: size of the model's embedding, if larger than the vocabulary.
      pad_token_id: for padding; by default as `load_tokenizer`.
      source: the file, for messages of the tokenizer.

    Returns:
      The tokenizer.

    Raises:
      ValueError: as `load_gguf_tokenizer`, without the file's name.
    """
    makers: dict[str, Callable[[Mapping[str, Any]], Spec]] = {
        "gpt2": _byte_level,
        "llama": _sentencepiece,
    }
    kind = metadata.get(f"{_KEYS}model")
    if kind not in makers:
        raise ValueError(
            f"{_KEYS}model must be one of {', '.join(makers)}, got {kind!r:.80}"
        )
    _check_lengths(metadata)
    spec = makers[kind](metadata)
    template = metadata.get("tokenizer.chat_template")
    special_tokens = _special_tokens(metadata, spec, template or "", kind, pad_token_id)
    if special_tokens.add_bos:
        spec["post_processor"] = bos_first(spec, special_tokens.bos_token_id)
    size = max(vocab_size or 0, len(metadata[f"{_KEYS}tokens"]))
    return TextTokenizer(spec, special_tokens, template, vocab_size=size, source=source)


def bos_first(spec: Spec, bos: int | None) -> Spec:
    """The post-processor of a tokenizer.json that adds BOS before every text.

    Args:
      spec: contents of the file.
      bos: id of BOS, one of the added tokens.

    Returns:
      The post-processor.
    """
    text = next(t["content"] for t in spec["added_tokens"] if t["id"] == bos)
    begin = {"SpecialToken": {"id": text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, begin, second],
        "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}},
    }


def _check_lengths(metadata: Mapping[str, Any]) -> None:
    tokens = _list(metadata, "tokens")
    kinds = _list(metadata, "token_type")
    if len(tokens) != len(kinds):
        raise ValueError(
            f"{_KEYS}token_type must have {len(tokens)} entries as tokens has, got "
            f"{len(kinds)}"
        )


def _list(metadata: Mapping[str, Any], key: str) -> list[Any]:
    value = metadata.get(f"{_KEYS}{key}")
    if not isinstance(value, list):
        raise ValueError(f"{_KEYS}{key} must be a list, got {value!r:.80}")
    return value


def _byte_level(metadata: Mapping[str, Any]) -> Spec:
    name = metadata.get(f"{_KEYS}pre")
    if not isinstance(name, str) or name not in WORD_RULES:
        raise ValueError(
            f"{_KEYS}pre must be one of {', '.join(WORD_RULES)}, got {name!r:.80}"
        )
    rule = WORD_RULES[name]
    merges = _list(metadata, "merges")
    tokens, kinds = metadata[f"{_KEYS}tokens"], metadata[f"{_KEYS}token_type"]
    vocabulary = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != UNUSED
    }
    return {
        "version": "1.0",
        "added_tokens": added_entries(tokens, kinds),
        "normalizer": {"type": "NFC"} if rule.normalize else None,
        "pre_tokenizer": rule.steps(),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "model": {
            "type": "BPE",
            "ignore_merges": rule.whole_words,
            "vocab": vocabulary,
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }


def _sentencepiece(metadata: Mapping[str, Any]) -> Spec:
    tokens, kinds = metadata[f"{_KEYS}tokens"], metadata[f"{_KEYS}token_type"]
    scores = metadata.get(f"{_KEYS}scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ValueError(
            f"{_KEYS}scores must be a list of {len(tokens)}, got {scores!r:.80}"
        )
    add_space = metadata.get(f"{_KEYS}add_space_prefix", True)
    return pieces_spec(tokens, scores, kinds, unigram=False, add_space=add_space)


def _special_tokens(
    metadata: Mapping[str, Any], spec: Spec, template: str, kind: str, pad: int | None
) -> SpecialTokens:
    size = len(metadata[f"{_KEYS}tokens"])
    named = {
        name: metadata.get(f"{_KEYS}{name}_token_id")
        for name in ("bos", "eos", "eot", "eom", "padding", "unknown")
    }
    for name, index in named.items():
        if index is not None and not (isinstance(index, int) and 0 <= index < size):
            raise ValueError(
                f"{_KEYS}{name}_token_id must be in 0..{size - 1}, got {index}"
            )
    control = control_ids(spec)
    ends = [named[name] for name in ("eos", "eot", "eom")]
    eos_token_ids = find_eos_token_ids(
        (index for index in ends if index is not None), control, named["padding"]
    )
    begins = kind == "llama" or WORD_RULES[metadata[f"{_KEYS}pre"]].add_bos
    bos = named["bos"]
    return SpecialTokens(
        eos_token_ids=eos_token_ids,
        pad_token_id=pad_token(named["padding"], eos_token_ids, control, template, pad),
        bos_token_id=bos,
        unk_token_id=named["unknown"],
        add_bos=bos is not None and metadata.get(f"{_KEYS}add_bos_token", begins),
    )


def control_ids(spec: Spec) -> dict[str, int]:
    """Ids of the control tokens of a tokenizer.json, by their text.

    Args:
      spec: contents of the file.

    Returns:
      The ids.
    """
    added = spec.get("added_tokens") or []
    return {token["content"]: token["id"] for token in added if token.get("special")}
