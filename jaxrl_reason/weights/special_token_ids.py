"""The special token ids in a model's files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokenIds:
    """The BOS, EOS and padding ids of a model.

    Attributes:
      bos_token_id: starts a text, None if the files have none.
      eos_token_ids: any of them ends a completion; models have several.
      pad_token_id: for padding, None if the files have none. May be an EOS token:
        lengths come from counts, never from comparing ids with it.
    """

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
