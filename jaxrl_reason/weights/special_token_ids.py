"""The token ids that a model's files name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokenIds:
    """Ids that begin, end and pad a sequence.

    Attributes:
      bos_token_id: begins a text, None where the files name none.
      eos_token_ids: any of them ends a completion; models have several.
      pad_token_id: fills rows, None where the files name none. May be an EOS token:
        lengths come from counts, never from comparing ids with it.
    """

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
