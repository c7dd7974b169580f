"""The interface of a tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Message = Mapping[str, Any]
"""One message of a chat: a role, a content, and what else its template reads."""


class Tokenizer(Protocol):
    """Text to token ids and back.

    Token ids are authoritative; text is for graders and people, so nothing may rely on
    `encode(decode(ids)) == ids` unless the tokenizer guarantees it.
    """

    @property
    def vocab_size(self) -> int:
        """The number of token ids; every id is in `range(vocab_size)`."""

    @property
    def pad_token_id(self) -> int:
        """The padding id."""

    @property
    def eos_token_id(self) -> int:
        """The id that ends a text; never equal to `pad_token_id`."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with nothing added before or after."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""


class ChatTokenizer(Tokenizer, Protocol):
    """A tokenizer of a real language model, with several EOS tokens, chats and bytes.

    A control token is one that plain text must never produce: `<|im_end|>`, `<s>`.
    """

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text, `eos_token_id` first; never `pad_token_id`."""

    @property
    def bos_token_id(self) -> int | None:
        """The id that starts a text, None if the model has none."""

    @property
    def strips_leading_space(self) -> bool:
        """Whether decoding removes one leading space, which encoding added."""

    def is_control(self, index: int) -> bool:
        """Whether an id is a control token."""

    def token_bytes(self, index: int) -> bytes:
        """The bytes of an id; they need not be whole characters."""

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text that starts a row, with `bos_token_id` if models need it."""

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> list[int]:
        """Ids of a chat by the model's template, ready for the assistant's turn."""
