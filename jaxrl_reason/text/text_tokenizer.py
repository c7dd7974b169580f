"""The tokenizer of a real language model, from any kind of file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.text.added_tokens import AddedToken, Splitter, added_tokens
from jaxrl_reason.text.backend import (
    Backend,
    JsonBackend,
    Spec,
    check_text,
    token_table,
)
from jaxrl_reason.text.chat import ChatWriter
from jaxrl_reason.text.protect import Spellings
from jaxrl_reason.text.special_tokens import SpecialTokens
from jaxrl_reason.text.tokenizer import Message
from jaxrl_reason.text.tokenizer_bounds import check_spec

_UNKNOWN = "\N{REPLACEMENT CHARACTER}".encode()


class TextTokenizer:
    """Text to ids and back, with control tokens kept out of text.

    `load_tokenizer` returns one. Plain `encode` never yields a control token:
    `<|im_end|>` in a text is encoded as the characters it consists of, as it is in the
    messages of `encode_chat`. `tokenizers` does the opposite unless told otherwise.

    Decoding is exact: ids of whole characters give those characters, others U+FFFD;
    there is no clean-up.

    Args:
      spec: contents of a tokenizer.json.
      special_tokens: special ids.
      chat_template: Jinja source, None if the model has no chats.
      vocab_size: size of the model's embedding, which may exceed the number of
        tokens; ids without a token decode to U+FFFD.
      backend: encodes plain text in place of the model in `spec`.
      source: the file that it is from, for messages.

    Raises:
      ValueError: if `spec` is unusable, or a special id is outside its vocabulary.
    """

    def __init__(
        self,
        spec: Spec,
        special_tokens: SpecialTokens,
        chat_template: str | None = None,
        *,
        vocab_size: int | None = None,
        backend: Backend | None = None,
        source: str | Path = "",
    ) -> None:
        self.spec = spec
        self.special_tokens = special_tokens
        self.chat_template = chat_template
        self._source = str(source)
        check_spec(spec)
        self._backend = backend or JsonBackend(spec, self._source)
        self._bytes, self._strips = token_table(spec)
        added = added_tokens(spec)
        self._control = {token.id: token for token in added if token.control}
        self._bytes.update((token.id, token.text.encode()) for token in added)
        # A control token of one character could not be told from that character.
        spelled = [token for token in self._control.values() if len(token.text) > 1]
        self._spellings = Spellings(token.text for token in spelled)
        self._words = Splitter(token for token in added if not token.control)
        self._controls = Splitter(spelled)
        self._literals = Splitter(AddedToken(t.text, t.id, True) for t in spelled)
        self._vocab_size = max(max(self._bytes) + 1, vocab_size or 0)
        named = [
            special_tokens.pad_token_id,
            special_tokens.bos_token_id,
            special_tokens.unk_token_id,
            *special_tokens.eos_token_ids,
        ]
        for index in named:
            self._text_of(index)

    @property
    def vocab_size(self) -> int:
        """The number of ids; at least the number of tokens."""
        return self._vocab_size

    @property
    def pad_token_id(self) -> int:
        """The padding id; not an EOS token."""
        return self.special_tokens.pad_token_id

    @property
    def eos_token_id(self) -> int:
        """The id that ends a turn of the chat template, or a text."""
        return self.special_tokens.eos_token_ids[0]

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every id that ends a text, `eos_token_id` first."""
        return self.special_tokens.eos_token_ids

    @property
    def bos_token_id(self) -> int | None:
        """The id that starts a text, None if the model has none."""
        return self.special_tokens.bos_token_id

    @property
    def control_tokens(self) -> dict[str, int]:
        """Ids of the control tokens by their text."""
        return {token.text: token.id for token in self._control.values()}

    @property
    def strips_leading_space(self) -> bool:
        """Whether decoding removes one leading space, which encoding added."""
        return self._strips

    def is_control(self, index: int) -> bool:
        """Whether an id is a control token."""
        return index in self._control

    def token_bytes(self, index: int) -> bytes:
        """The bytes of an id; they need not be whole characters.

        Args:
          index: a token id.

        Returns:
          Its bytes; those of U+FFFD for an id without a token.

        Raises:
          ValueError: if the id is outside the vocabulary.
        """
        # A negative index would silently read from the end of an array.
        if not 0 <= index < self._vocab_size:
            raise ValueError(
                f"a token id must be in 0..{self._vocab_size - 1}, got {index}"
            )
        return self._bytes.get(int(index), _UNKNOWN)

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids of a text, with nothing added before or after.

        Args:
          text: any text.
          control: read `<|im_end|>` and the like as control tokens. Only for texts
            that you wrote yourself.

        Returns:
          The ids.

        Raises:
          ValueError: if the text holds half of a surrogate pair.
        """
        check_text(text)
        pieces = self._controls.split(text) if control else [text]
        return self._encode_pieces(pieces)

    def encode_prompt(self, text: str, *, control: bool = False) -> list[int]:
        """`encode`, with `bos_token_id` before it if every text of the model begins so.

        Args:
          text: any text.
          control: as for `encode`.

        Returns:
          The ids.
        """
        return self._with_bos(self.encode(text, control=control))

    def decode(self, ids: Sequence[int], *, skip_control: bool = True) -> str:
        """Text of token ids.

        Args:
          ids: token ids, a list or an array.
          skip_control: leave control tokens out; otherwise they are decoded to text.

        Returns:
          The text; invalid bytes become U+FFFD.

        Raises:
          ValueError: if an id is outside the vocabulary.
        """
        kept = (i for i in ids if not (skip_control and int(i) in self._control))
        text = b"".join(map(self.token_bytes, kept))
        if self._strips and text.startswith(b" "):
            text = text[1:]
        return text.decode("utf-8", errors="replace")

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The chat as rendered by the template, for people: `encode_chat` encodes it.

        Encoding this text could turn users' text into control tokens.

        Args:
          messages: the chat, mappings with "role" and "content".
          add_generation_prompt: end where the assistant begins to speak.
          continue_final_message: as `encode_chat`.
          **variables: what else the template reads, `tools` for example.

        Returns:
          The text.

        Raises:
          ValueError: as `encode_chat`.
        """
        return (
            self._chat()
            .write(messages, add_generation_prompt, variables, continue_final_message)
            .text
        )

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> list[int]:
        """Ids of a chat by the model's template.

        The template's control tokens become control tokens; those that the messages
        spell become text. There is one `bos_token_id` at the start: duplicates are
        dropped, and it is added if the template lacks it and every text begins with it.

        Args:
          messages: the chat, mappings with "role" and "content". The role may be part
            of a control token, so it must come from you and not from a user. Keys with
            None are left out.
          add_generation_prompt: end where the assistant begins to speak.
          continue_final_message: end right after the content of the last message, for
            the model to go on with it; no assistant's turn begins then.
          **variables: what else the template reads, `tools` for example.

        Returns:
          The ids.

        Raises:
          ValueError: if there is no template, it rejects the messages or leaves out
          the end of the one to continue, a role is not a plain word, or the messages
          have other than plain JSON values.
        """
        written = self._chat().write(
            messages, add_generation_prompt, variables, continue_final_message
        )
        ids = self._encode_pieces(written.pieces)
        while len(ids) > 1 and ids[0] == ids[1] == self.bos_token_id:
            del ids[0]
        return self._with_bos(ids)

    def _chat(self) -> ChatWriter:
        if self.chat_template is None:
            raise ValueError(
                "a chat needs a chat template, got a tokenizer without one"
            )
        named = {
            "bos_token": self._text_of(self.special_tokens.bos_token_id),
            "eos_token": self._text_of(self.eos_token_id),
            "pad_token": self._text_of(self.pad_token_id),
            "unk_token": self._text_of(self.special_tokens.unk_token_id),
        }
        return ChatWriter(
            self.chat_template, self._spellings, self._controls, named, self._source
        )

    def _text_of(self, index: int | None) -> str:
        return "" if index is None else self.token_bytes(index).decode(errors="replace")

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self.special_tokens.bos_token_id
        if not self.special_tokens.add_bos or bos is None or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def _encode_pieces(self, pieces: Sequence[str | int]) -> list[int]:
        ids: list[int] = []
        first = True
        for piece in pieces:
            parts = [piece] if isinstance(piece, int) else self._words.split(piece)
            for part in parts:
                ids += [part] if isinstance(part, int) else self._plain(part, first)
                first = False
        return ids

    def _plain(self, text: str, first: bool) -> list[int]:
        ids = self._backend.encode(text, first=first)
        if self._control.keys().isdisjoint(ids):
            return ids
        # Some vocabularies have their control tokens as ordinary words. Splitting
        # inside each of them prevents a match.
        parts = [
            piece for part in self._literals.split(text) for piece in self._pieces(part)
        ]
        ids = [
            index
            for number, piece in enumerate(parts)
            for index in self._backend.encode(piece, first=first, inside=number > 0)
        ]
        # Text outside the vocabulary becomes the unknown token, which is harmless.
        found = self._control.keys() & set(ids) - {self.special_tokens.unk_token_id}
        if found:
            raise ValueError(
                "a vocabulary must not spell control tokens by text, got "
                f"{self._control[min(found)].text!r} for {text!r:.80}"
            )
        return ids

    def _pieces(self, part: str | int) -> list[str]:
        if isinstance(part, str):
            return [part]
        text = self._control[part].text
        return [text[:1], text[1:]]
