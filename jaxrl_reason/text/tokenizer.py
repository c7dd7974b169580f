"""What the rest of the library needs of a tokenizer."""

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back.

    Token ids are the truth; text is for graders and people, so nothing may rely on
    `encode(decode(ids)) == ids` unless the tokenizer promises it.
    """

    @property
    def vocab_size(self) -> int:
        """Number of token ids; every id is in `range(vocab_size)`."""

    @property
    def pad_id(self) -> int:
        """Id that fills rows after their end."""

    @property
    def end_id(self) -> int:
        """Id that ends a text; never equal to `pad_id`."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with nothing added before or after."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
