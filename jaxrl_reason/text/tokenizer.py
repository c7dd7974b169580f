"""What the rest of the library needs of a tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Message = Mapping[str, Any]
"""One message of a chat: a role, a content, and what else its template reads."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    Token ids are the truth; text is for graders and people, so nothing may rely on
    `encode(decode(ids)) == ids` unless the tokenizer promises it.
    """

    @property
    def vocab_size(self) -> int:
        """Number of token ids; every id is in `range(vocab_size)`."""

    @property
    def pad_token_id(self) -> int:
        """Id that fills rows after their end."""

    @property
    def eos_token_id(self) -> int:
        """Id that ends a text; never equal to `pad_token_id`."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with nothing added before or after."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""


class ChatTokenizer(Tokenizer, Protocol):
    """A tokenizer of a real language model: several EOS tokens, chats, bytes.

    A control token is one that no text may produce by chance: `<|im_end|>`, `<s>`.
    """

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text, `eos_token_id` first; never `pad_token_id`."""

    @property
    def bos_token_id(self) -> int | None:
        """Id that begins a text, None if the model knows none."""

    @property
    def strips_leading_space(self) -> bool:
        """Whether a decoded text loses one leading space, which encoding had put."""

    def is_control(self, index: int) -> bool:
        """Whether an id is a control token."""

    def token_bytes(self, index: int) -> bytes:
        """The bytes that an id writes; they need not be whole characters."""

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text that begins a row; with `bos_token_id` where models want it."""

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a chat by the model's template, ready for the assistant's turn."""
