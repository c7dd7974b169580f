"""Texts to continue pre-training on: every token is predicted once."""

from collections.abc import Sequence
from pathlib import Path

from jaxrl_reason.learner.sft import Example
from jaxrl_reason.tasks.question_rows import (
    NamedPlace,
    require_rows,
    rows_digest,
    text_field,
)
from jaxrl_reason.tasks.question_sources import open_rows
from jaxrl_reason.text.tokenizer import Tokenizer


def read_texts(
    source: str, field: str, *, data_dir: str | Path | None = None
) -> tuple[list[str], str]:
    """The texts of any source of `open_rows`, and the digest of its rows.

    Args:
      source: a file, folder, tfds:... or hub:....
      field: of a row, with its text.
      data_dir: the folder of TFDS datasets.

    Raises:
      QuestionFileError: a row has no such text, or there is none; the message names the
        place.
    """
    rows = list(require_rows(source, open_rows(source, data_dir=data_dir).rows))
    texts = []
    for place, row in rows:
        with NamedPlace(place):
            texts.append(text_field(row, field))
    return texts, rows_digest(rows)


def text_pieces(tokenizer: Tokenizer, text: str, size: int) -> list[Example]:
    """A text with its EOS token in pieces, each behind the token before it.

    The first follows the tokenizer's start token, or its EOS token if it has none, as
    the texts of a pre-training stream follow each other.

    Args:
      tokenizer: of the model.
      text: a whole document.
      size: most tokens of a piece; 0 for one piece.

    Returns:
      (prompt, response) of each piece: a token, and those to predict.

    Example:
      >>> from jaxrl_reason.text.characters import CharacterTokenizer
      >>> tokenizer = CharacterTokenizer("abc")
      >>> end = tokenizer.eos_token_id
      >>> a, b, c = tokenizer.encode("abc")
      >>> text_pieces(tokenizer, "abc", 3) == [([end], [a, b, c]), ([c], [end])]
      True
    """
    start = getattr(tokenizer, "bos_token_id", None)
    end = tokenizer.eos_token_id
    ids = [end if start is None else start, *tokenizer.encode(text), end]
    size = size or len(ids)
    return [
        (ids[i : i + 1], ids[i + 1 : i + 1 + size])
        for i in range(0, len(ids) - 1, size)
    ]


def longest_piece(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> int:
    """Tokens of the longest piece of all texts."""
    longest = 0
    for text in texts:
        longest = max(longest, len(tokenizer.encode(text)) + 1)
        if size and longest >= size:  # texts need not all be read twice
            return size
    return longest
