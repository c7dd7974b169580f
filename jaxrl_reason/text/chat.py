"""A chat rendered by its template, split at the template's control tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxrl_reason.text.added_tokens import Splitter
from jaxrl_reason.text.backend import check_text
from jaxrl_reason.text.chat_template import check_messages, render
from jaxrl_reason.text.protect import Protector, Spellings
from jaxrl_reason.text.tokenizer import Message


@dataclass(frozen=True)
class WrittenChat:
    """A rendered chat.

    Attributes:
      text: the whole text, for people.
      pieces: ids of the template's control tokens, and the text between them.
    """

    text: str
    pieces: list[str | int]


class ChatWriter:
    """Renders chats so that messages cannot produce control tokens.

    Args:
      template: Jinja source.
      spellings: of the control tokens.
      controls: finds control tokens in rendered text.
      named: the tokenizer's variables for templates: `bos_token` and so on.
      source: the file that the template is from, for messages.
    """

    def __init__(
        self,
        template: str,
        spellings: Spellings,
        controls: Splitter,
        named: Mapping[str, str],
        source: str = "",
    ) -> None:
        self._template = template
        self._spellings = spellings
        self._controls = controls
        self._named = named
        self._source = source

    def write(
        self,
        messages: Sequence[Message],
        prompt: bool,
        variables: Mapping[str, Any],
        unfinished: bool = False,
    ) -> WrittenChat:
        """Renders a chat.

        Args:
          messages: mappings with "role" and "content". Keys with None are left out, as
            in transformers: templates ask whether a key is there.
          prompt: whether to end with the start of the assistant's turn.
          variables: other variables of the template.
          unfinished: whether to end within the last message, right after its content.

        Returns:
          The chat.

        Raises:
          ValueError: if the template rejects the messages or makes a control token from
          their text, a role is not a plain word, a variable is one of the chat's own,
          a message has other than plain JSON values, or an unfinished one is no text
          or not written whole.
        """
        check_messages(messages)
        messages = [
            {key: value for key, value in message.items() if value is not None}
            for message in messages
        ]
        own = {*self._named, "messages", "add_generation_prompt"}
        if reserved := sorted(own & variables.keys()):
            raise ValueError(f"variables must not redefine the chat's, got {reserved}")
        values = [messages, variables, self._template]
        protector = Protector(self._spellings, values)
        if unfinished:
            messages[-1] = protector.with_end(messages[-1])

        def written(every: bool) -> str:
            marked = [
                {**protector.protect(message, every=every), "role": message["role"]}
                for message in messages
            ]
            given = {
                "tools": None,
                "documents": None,
                **protector.protect(variables, every=every),
                **self._named,
                "add_generation_prompt": prompt and not unfinished,
            }
            given["messages"] = marked
            text = render(self._template, given, self._source)
            return protector.up_to_end(text) if unfinished else text

        text = written(every=False)
        check_text(text)
        # Marks everywhere would hide words that templates search for, such as
        # `</think>`. So they are only used to check that no control token came from a
        # message's parts.
        found = self._found_in(text)
        if found != self._found_in(written(every=True)):
            raise ValueError(
                "a chat template must not make control tokens out of the messages' "
                f"text, got {found}"
            )
        pieces = [
            piece if isinstance(piece, int) else protector.restore(piece)
            for piece in self._controls.split(text)
        ]
        return WrittenChat(protector.restore(text), pieces)

    def _found_in(self, text: str) -> list[int]:
        return [piece for piece in self._controls.split(text) if isinstance(piece, int)]
