"""The part of a tokenizer without special tokens: text to ids, ids to bytes.

A `tokenizer.json` is read without its added tokens, its template of special tokens and
its leading space; `TextTokenizer` handles these itself, so that text can never turn
into a control token.
"""

import re
from typing import Any, Protocol

from jaxrl_reason.text.library_errors import is_of_library

Spec = dict[str, Any]
"""The contents of a tokenizer.json."""

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What sentencepiece writes for a space."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Backend(Protocol):
    """Encodes plain text."""

    def encode(self, text: str, *, first: bool, inside: bool = False) -> list[int]:
        """Ids of a text between two added tokens.

        Args:
          text: the text.
          first: whether it is the start of the whole text.
          inside: whether it continues a text, so that no space is put before it.
        """


class JsonBackend:
    """The model of a tokenizer.json, by the package `tokenizers`.

    Args:
      spec: contents of the file.
      source: its path, for messages.

    Raises:
      ValueError: if `tokenizers` rejects them.
    """

    def __init__(self, spec: Spec, source: str = "") -> None:
        import json

        from tokenizers import Tokenizer

        normalizer, prepends = _without_prepend(spec.get("normalizer"))
        pre_tokenizer, scheme = _without_scheme(spec.get("pre_tokenizer"))
        self._where = f"{source}: " if source else ""
        self._rule = "prepend" if prepends else scheme
        plain = {
            **spec,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "added_tokens": [],
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(plain))
        except BaseException as error:  # tokenizers raises Exception itself
            if not is_of_library(error):
                raise
            raise ValueError(
                f"a tokenizer.json must be one that tokenizers reads, got: {error}"
            ) from error

    def encode(self, text: str, *, first: bool, inside: bool = False) -> list[int]:
        """Ids of a text between two added tokens, see `Backend`."""
        if not inside and self._wants_space(text, first):
            text = SPACE + text
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except BaseException as error:
            if not is_of_library(error):
                raise
            raise ValueError(
                f"{self._where}a tokenizer must encode {text!r:.80}, got: {error}"
            ) from error

    def _wants_space(self, text: str, first: bool) -> bool:
        if self._rule == "prepend":
            return True
        wanted = self._rule == "always" or (self._rule == "first" and first)
        return wanted and not text.startswith((" ", SPACE))


def check_text(text: str) -> None:
    """Raises for text that cannot be encoded in UTF-8.

    Args:
      text: any text.

    Raises:
      ValueError: if it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "a text must hold whole characters, got half of a surrogate pair "
            f"at {error.start}"
        ) from None


def token_table(spec: Spec) -> tuple[dict[int, bytes], bool]:
    """The bytes of each token of the model.

    Args:
      spec: contents of a tokenizer.json; its decoder must be the byte-level one or
        one of sentencepiece's kind.

    Returns:
      Bytes by id, and whether the tokenizer adds a leading space.

    Raises:
      ValueError: if the decoder is of another kind or the vocabulary is not a table.
    """
    decoders = _parts(spec.get("decoder"), "decoders")
    kinds = {part.get("type") for part in decoders}
    pieces = _vocabulary(spec)
    if "ByteLevel" in kinds:
        return {index: _byte_level(text) for text, index in pieces.items()}, False
    if not kinds & {"Metaspace", "ByteFallback"}:
        raise ValueError(
            "a tokenizer.json's decoder must be ByteLevel, Metaspace or one with "
            f"ByteFallback, got {sorted(map(str, kinds))}"
        )
    fallback = "ByteFallback" in kinds
    table = {index: _piece_bytes(text, fallback) for text, index in pieces.items()}
    return table, any(_strips(part) for part in decoders)


def _vocabulary(spec: Spec) -> dict[str, int]:
    model = spec.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # Unigram: pairs of piece and score
        vocabulary = {pair[0]: index for index, pair in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise ValueError(
            "a tokenizer.json's model must hold a vocabulary, got "
            f"{type(vocabulary).__name__}"
        )
    return vocabulary


def _byte_alphabet() -> dict[str, int]:
    """The printable character for each byte in byte-level vocabularies."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + rank): byte for rank, byte in enumerate(rest)}


_ALPHABET = _byte_alphabet()


def _byte_level(text: str) -> bytes:
    try:
        return bytes(_ALPHABET[character] for character in text)
    except KeyError:  # a word that was added literally
        return text.encode()


def _piece_bytes(text: str, fallback: bool) -> bytes:
    byte = _BYTE.fullmatch(text) if fallback else None
    if byte:
        return bytes([int(byte.group(1), 16)])
    return text.replace(SPACE, " ").encode()


def _strips(decoder: Spec) -> bool:
    if decoder.get("type") == "Metaspace":
        return _scheme(decoder) != "never"
    return decoder.get("type") == "Strip" and decoder.get("start", 0) > 0


def _scheme(metaspace: Spec) -> str:
    """When a leading space is added; older files have a boolean for it."""
    old = "always" if metaspace.get("add_prefix_space", True) else "never"
    return metaspace.get("prepend_scheme", old)


def _parts(node: Spec | None, key: str) -> list[Spec]:
    """The members of a sequence, or the single node, or nothing."""
    if node is None:
        return []
    return list(node.get(key, [])) if node.get("type") == "Sequence" else [node]


def _without_prepend(node: Spec | None) -> tuple[Spec | None, bool]:
    parts = _parts(node, "normalizers")
    kept = [part for part in parts if part.get("prepend") != SPACE]
    if len(kept) == len(parts):
        return node, False
    return {"type": "Sequence", "normalizers": kept}, True


def _without_scheme(node: Spec | None) -> tuple[Spec | None, str]:
    parts = _parts(node, "pretokenizers")
    found = [part for part in parts if part.get("type") == "Metaspace"]
    if not found:
        return node, "never"
    kept = [
        {**_without(part, "add_prefix_space"), "prepend_scheme": "never"}
        if part in found
        else part
        for part in parts
    ]
    return {"type": "Sequence", "pretokenizers": kept}, _scheme(found[0])


def _without(node: Spec, key: str) -> Spec:
    return {name: value for name, value in node.items() if name != key}
