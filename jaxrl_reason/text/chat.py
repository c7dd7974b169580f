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
        self, messages: Sequence[Message], prompt: bool, variables: Mapping[str, Any]
    ) -> WrittenChat:
        """Renders a chat.

        Args:
          messages: mappings with "role" and "content".
          prompt: whether to end with the start of the assistant's turn.
          variables: other variables of the template.

        Returns:
          The chat.

        Raises:
          ValueError: if the template rejects the messages or makes a control token from
          their text, a role is not a plain word, a variable is one of the chat's own,
          or a message has other than plain JSON values.
        """
        check_messages(messages)
        own = {*self._named, "messages", "add_generation_prompt"}
        if reserved := sorted(own & variables.keys()):
            raise ValueError(f"variables must not redefine the chat's, got {reserved}")
        values = [list(messages), variables, self._template]
        protector = Protector(self._spellings, values)

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
                "add_generation_prompt": prompt,
            }
            given["messages"] = marked
            return render(self._template, given, self._source)

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
