"""The token ids that a model's files name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that begin, end and pad a sequence.

    Attributes:
      bos: begins a text, None where the files name none.
      ends: any of them ends a completion; models have several.
      pad: fills rows, None where the files name none. May equal an end: lengths
        come from counts, never from comparing ids with it.
    """

    bos: int | None = None
    ends: tuple[int, ...] = ()
    pad: int | None = None
