"""A sentencepiece .model file."""

from pathlib import Path
from typing import Any

from jaxrl_reason.text.backend import Spec
from jaxrl_reason.text.gguf_tokenizer import bos_first, control_ids
from jaxrl_reason.text.pieces import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    pieces_spec,
)
from jaxrl_reason.text.special_tokens import (
    SpecialTokens,
    find_eos_token_ids,
    pad_token,
)
from jaxrl_reason.text.text_tokenizer import TextTokenizer

_UNIGRAM, _BPE = 1, 2


class SentencePieceBackend:
    """Encodes plain text with the sentencepiece library.

    Args:
      model: contents of the .model file.
    """

    def __init__(self, model: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self._processor = SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)

    def encode(self, text: str, *, first: bool, inside: bool = False) -> list[int]:
        """Ids of a text between two added tokens; a space is put before each."""
        del first, inside  # sentencepiece never produces a control token
        return self._processor.encode(text)


def load_sentencepiece(
    path: Path | str,
    *,
    chat_template: str | None = None,
    add_bos: bool = True,
    vocab_size: int | None = None,
    pad_token_id: int | None = None,
) -> TextTokenizer:
    """The tokenizer of a .model file.

    sentencepiece encodes; `save_tokenizer` writes a tokenizer.json with the same
    pieces.

    Args:
      path: the file.
      chat_template: Jinja source; a .model file has none.
      add_bos: whether every text begins with BOS, as for Llama 2 and Mistral.
      vocab_size: size of the model's embedding, if larger than the vocabulary.
      pad_token_id: for padding; by default as `load_tokenizer`.

    Returns:
      The tokenizer.

    Raises:
      ValueError: if the file is not a sentencepiece model, normalises characters (NFKC
      and the like), or is neither BPE nor unigram.
    """
    content = Path(path).read_bytes()
    try:
        proto = _parse(content)
        spec = _spec(proto)
        named = proto.trainer_spec
        control = control_ids(spec)
        pad = named.pad_id if named.pad_id >= 0 else None
        end = [named.eos_id] if named.eos_id >= 0 else []
        ends = find_eos_token_ids(end, control, pad)
        bos = named.bos_id if named.bos_id >= 0 else None
        special_tokens = SpecialTokens(
            eos_token_ids=ends,
            pad_token_id=pad_token(
                pad, ends, control, chat_template or "", pad_token_id
            ),
            bos_token_id=bos,
            unk_token_id=named.unk_id,
            add_bos=add_bos and bos is not None,
        )
        backend = SentencePieceBackend(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if special_tokens.add_bos:
        spec["post_processor"] = bos_first(spec, bos)
    return TextTokenizer(
        spec,
        special_tokens,
        chat_template,
        vocab_size=vocab_size,
        backend=backend,
        source=path,
    )


def _parse(content: bytes) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    messages: Any = sentencepiece_model_pb2
    proto = messages.ModelProto()
    try:
        proto.ParseFromString(content)
    except Exception as error:  # protobuf's own error is not a ValueError
        raise ValueError(f"a .model must be sentencepiece's, got: {error}") from error
    if not proto.pieces:
        raise ValueError("a .model must hold pieces, got none")
    return proto


def _spec(proto: Any) -> Spec:
    kind, rules = proto.trainer_spec.model_type, proto.normalizer_spec
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"a .model must be BPE or unigram, got type {kind}")
    if rules.precompiled_charsmap or rules.remove_extra_whitespaces:
        raise ValueError(
            "a .model must keep its text as it is (identity, extra white space kept), "
            f"got normalizer {rules.name!r}, remove_extra_whitespaces "
            f"{rules.remove_extra_whitespaces}"
        )
    # sentencepiece numbers the kinds of pieces as `pieces` does.
    known = (NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)
    kinds = [piece.type for piece in proto.pieces]
    if not set(kinds) <= set(known):
        raise ValueError(f"a piece's type must be in {known}, got {sorted(set(kinds))}")
    return pieces_spec(
        [piece.piece for piece in proto.pieces],
        [piece.score for piece in proto.pieces],
        kinds,
        unigram=kind == _UNIGRAM,
        add_space=rules.add_dummy_prefix,
    )
