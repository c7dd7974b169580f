"""One token per character, for toy models on real text."""

from collections.abc import Sequence

_PAD, _END = "<pad>", "<end>"


class CharacterTokenizer:
    """Ids for the characters of an alphabet, with padding 0 and EOS 1.

    Args:
      alphabet: the characters that have a token; duplicates count once.

    Raises:
      ValueError: if the alphabet is empty.

    Example:
      >>> tokenizer = CharacterTokenizer("0123456789+= ")
      >>> tokenizer.encode("1+1")
      [3, 12, 3]
      >>> tokenizer.decode([3, 12, 3, tokenizer.eos_token_id])
      '1+1<end>'
    """

    def __init__(self, alphabet: str) -> None:
        if not alphabet:
            raise ValueError("alphabet must hold a character, got ''")
        self._words = (_PAD, _END, *dict.fromkeys(alphabet))
        self._ids = {word: index for index, word in enumerate(self._words)}

    @property
    def vocab_size(self) -> int:
        """The number of characters plus two."""
        return len(self._words)

    @property
    def pad_token_id(self) -> int:
        """0."""
        return 0

    @property
    def eos_token_id(self) -> int:
        """1."""
        return 1

    def encode(self, text: str) -> list[int]:
        """One id per character.

        Args:
          text: characters of the alphabet.

        Returns:
          The ids; no EOS token is added.

        Raises:
          ValueError: if a character has no token; the message names it.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ValueError(
                f"a character must be in the alphabet, got {error.args[0]!r}"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, including `<pad>` and `<end>`.

        Args:
          ids: token ids.

        Returns:
          The text.

        Raises:
          ValueError: if an id is outside the vocabulary; the message names it.
        """
        for index in ids:
            if not 0 <= index < len(self._words):
                raise ValueError(
                    f"a token id must be in 0..{len(self._words) - 1}, got {index}"
                )
        return "".join(self._words[index] for index in ids)
