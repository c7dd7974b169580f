"""Stopping a response at token sequences or strings."""

from collections.abc import Callable, Sequence

# (tokens so far, how many of them were checked before) -> length to stop at
StopCheck = Callable[[Sequence[int], int], int | None]


def stop_sequences(sequences: Sequence[Sequence[int]]) -> StopCheck:
    """Stops after the first of these token sequences.

    Raises:
      ValueError: a sequence is empty.

    >>> stop_sequences([(4, 5)])([1, 4, 5, 7, 4, 5], 0)
    3
    """
    if not all(len(sequence) for sequence in sequences):
        raise ValueError(f"stop sequences must not be empty, got {list(sequences)}")
    ends = [tuple(sequence) for sequence in sequences]

    def check(tokens: Sequence[int], checked: int) -> int | None:
        for size in range(checked + 1, len(tokens) + 1):
            if any(tuple(tokens[:size][-len(end) :]) == end for end in ends):
                return size
        return None

    return check


def stop_strings(
    decode: Callable[[Sequence[int]], str], strings: Sequence[str]
) -> StopCheck:
    """Stops at the first token with which the text contains one of these strings.

    All tokens are decoded together, since a string may begin in one token and end in
    another.

    Args:
      decode: token ids to text.
      strings: what to stop at; none may be empty.

    Raises:
      ValueError: a string is empty.

    >>> letters = lambda tokens: "".join(chr(97 + t) for t in tokens)
    >>> stop_strings(letters, ["cd"])([0, 1, 2, 3, 4], 2)
    4
    """
    if not all(strings):
        raise ValueError(f"stop strings must not be empty, got {list(strings)}")

    def found(tokens: Sequence[int]) -> bool:
        text = decode(tokens)
        return any(string in text for string in strings)

    def check(tokens: Sequence[int], checked: int) -> int | None:
        if not found(tokens):
            return None
        sizes = range(checked + 1, len(tokens))
        return next((n for n in sizes if found(tokens[:n])), len(tokens))

    return check
