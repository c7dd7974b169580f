"""One token per integer and one per symbol: the tokenizer of the toy tasks."""

from collections.abc import Sequence

PAD = "<pad>"
END = "<end>"
THINK = "<think>"
END_THINK = "</think>"
ANSWER = "<answer>"
END_ANSWER = "</answer>"
LOW = "low"
HIGH = "high"
YES = "yes"
OPERATORS = ("+", "-", "*", "/")

# The order fixes the ids: padding is 0, the numbers come last so that a larger
# `max_number` leaves every other id where it is.
_TAGS = (PAD, END, THINK, END_THINK, ANSWER, END_ANSWER)
_SYMBOLS = (*_TAGS, LOW, HIGH, YES, *OPERATORS, "(", ")", "=", ",", ":")


class SymbolTokenizer:
    """The integers 0..max_number, the symbols of Countdown and words, one token each.

    Words are separated by white space, in text and in the output of `decode`, so
    `encode(decode(ids)) == ids` for every list of ids, and `decode(encode(text))` is
    the text with single spaces. With character tokens rows would be several times as
    long.

    Args:
      max_number: the largest integer with a token.
      words: further words, whose ids follow those of the numbers.

    Raises:
      ValueError: if max_number is negative, or a word is empty, has white space in it
        or has a token already.

    Example:
      >>> tokenizer = SymbolTokenizer(50)
      >>> tokenizer.decode(tokenizer.encode("3 4  5 : 35 <think>"))
      '3 4 5 : 35 <think>'
      >>> SymbolTokenizer(9, ["so", "wait"]).encode("wait")
      [29]
    """

    def __init__(self, max_number: int, words: Sequence[str] = ()) -> None:
        if max_number < 0:
            raise ValueError(f"max_number must be >= 0, got {max_number}")
        self.max_number, self.words = max_number, tuple(words)
        numbers = (str(number) for number in range(max_number + 1))
        self._words = [*_SYMBOLS, *numbers]
        for word in self.words:
            if word.split() != [word] or word in self._words:
                raise ValueError(
                    f"words must be single ones that have no token yet, got {word!r}"
                )
            self._words.append(word)
        self._ids = {word: index for index, word in enumerate(self._words)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SymbolTokenizer) and self._words == other._words

    def __hash__(self) -> int:
        return hash(tuple(self._words))

    def __repr__(self) -> str:
        more = f", words={self.words}" if self.words else ""
        return f"SymbolTokenizer(max_number={self.max_number}{more})"

    @property
    def vocab_size(self) -> int:
        """The number of symbols, numbers and words."""
        return len(self._words)

    @property
    def pad_token_id(self) -> int:
        """0, the id of `<pad>`."""
        return 0

    @property
    def eos_token_id(self) -> int:
        """Id of `<end>`."""
        return self._ids[END]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of words separated by white space.

        Args:
          text: words, each a number 0..max_number, a symbol or one of `words`.

        Returns:
          One id per word; no EOS token is added.

        Raises:
          ValueError: if a word has no token; the message names it.
        """
        words = text.split()
        try:
            return [self._ids[word] for word in words]
        except KeyError:
            word = next(word for word in words if word not in self._ids)
            raise ValueError(
                f"a word must be a number 0..{self.max_number} or one of "
                f"{' '.join((*_SYMBOLS, *self.words))}, got {word[:40]!r}"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The words of the ids, joined with single spaces.

        Args:
          ids: token ids (padding is decoded to `<pad>`).

        Returns:
          The text.

        Raises:
          ValueError: if an id is outside the vocabulary; the message names it.
        """
        words = []
        for index in ids:
            # A negative index would silently read from the end of the table.
            if not 0 <= index < len(self._words):
                raise ValueError(
                    f"a token id must be in 0..{len(self._words) - 1}, got {index}"
                )
            words.append(self._words[index])
        return " ".join(words)
