"""A tokenizer.json from sentencepiece's pieces, their scores and their kinds."""

from collections.abc import Sequence

from jaxrl_reason.text.backend import SPACE, Spec
from jaxrl_reason.text.tokenizer_bounds import check_beginnings

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of pieces, as numbered by sentencepiece and by GGUF."""


def added_entries(pieces: Sequence[str], kinds: Sequence[int]) -> list[Spec]:
    """Entries of a tokenizer.json's added tokens.

    Args:
      pieces: the vocabulary, by id.
      kinds: kind of each piece.

    Returns:
      One entry for each unknown, control and user-defined piece.
    """
    return [
        {
            "id": index,
            "content": piece,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != USER_DEFINED,
        }
        for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]


def pieces_spec(
    pieces: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    unigram: bool,
    add_space: bool,
) -> Spec:
    """The contents of a tokenizer.json that encodes as sentencepiece does.

    Args:
      pieces: the vocabulary, by id.
      scores: score of each piece; the pair with the highest result is merged first.
      kinds: kind of each piece.
      unigram: whether the model is unigram, not byte-pair encoding.
      add_space: whether a text gets a leading space.

    Returns:
      The contents.

    Raises:
      ValueError: if there is no unknown piece, or pieces are far too long.
    """
    check_beginnings(list(pieces))
    unknown = [index for index, kind in enumerate(kinds) if kind == UNKNOWN]
    if not unknown:
        raise ValueError("sentencepiece's pieces must have an unknown one, got none")
    model: Spec = {"byte_fallback": BYTE in kinds}
    if unigram:
        # tokenizers would read a text "<0x41>" as the byte; with so low a score it does
        # not.
        low = min(scores) - 1000.0
        ranked = [
            [piece, low if kind == BYTE else score]
            for piece, score, kind in zip(pieces, scores, kinds, strict=True)
        ]
        model |= {"type": "Unigram", "unk_id": unknown[0], "vocab": ranked}
    else:
        model |= {"type": "BPE", "unk_token": pieces[unknown[0]], "fuse_unk": True}
        model["vocab"] = {
            piece: index for index, piece in enumerate(pieces) if kinds[index] != UNUSED
        }
        model["merges"] = _merges(pieces, scores, kinds)
    return {
        "version": "1.0",
        "added_tokens": added_entries(pieces, kinds),
        "normalizer": _normalizer(add_space),
        "decoder": _decoder(add_space),
        "model": model,
    }


def _normalizer(add_space: bool) -> Spec:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    steps = [prepend, replace] if add_space else [replace]
    return {"type": "Sequence", "normalizers": steps}


def _decoder(add_space: bool) -> Spec:
    steps: list[Spec] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _merges(
    pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[list[str]]:
    """Pairs of pieces that merge to a piece, by descending score of the result."""
    ids = {p: i for i, p in enumerate(pieces) if kinds[i] in (NORMAL, USER_DEFINED)}
    ranked = []
    for whole, index in ids.items():
        for middle in range(1, len(whole)):
            left, right = whole[:middle], whole[middle:]
            if left in ids and right in ids:
                ranked.append((-scores[index], ids[left], ids[right], [left, right]))
    return [pair for *_, pair in sorted(ranked)]
