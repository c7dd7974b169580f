"""Decoding text while it is being sampled."""

import codecs

from jaxrl_reason.text.tokenizer import ChatTokenizer


class StreamDecoder:
    """Decodes ids that arrive one by one.

    An emoji may take several tokens; its bytes are held back until it is complete. The
    joined output equals `decode` of all ids.

    Args:
      tokenizer: of the ids.
      skip_control: leave control tokens out; otherwise they are decoded to text.
    """

    def __init__(self, tokenizer: ChatTokenizer, *, skip_control: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_control = skip_control
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = tokenizer.strips_leading_space

    def push(self, index: int) -> str:
        """The characters completed by an id, often none.

        Args:
          index: the next id.

        Returns:
          New text.

        Raises:
          ValueError: if the id is outside the vocabulary.
        """
        new = self._tokenizer.token_bytes(index)
        if self._skip_control and self._tokenizer.is_control(index):
            return ""
        if self._at_start and new:
            self._at_start = False
            new = new.removeprefix(b" ")
        return self._decoder.decode(new)

    def finish(self) -> str:
        """The text held back after the last id: U+FFFD for a partial character."""
        return self._decoder.decode(b"", final=True)
