"""The key-value part of a GGUF file.

The gguf package reads it too, but keeps every element of an array as a separate array,
which takes seconds for a vocabulary.
"""

import mmap
import struct
from pathlib import Path
from typing import Any

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"}
_NUMBERS |= {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEEPEST = 4  # nested arrays; no known file has them
# Values in a file, each element of an array counted: a vocabulary of 262,144 tokens has
# 1.3 million with its merges, kinds and scores.
MOST_VALUES = 2 * 2**20


def read_metadata(path: Path | str, prefix: str = "") -> dict[str, Any]:
    """Keys and values of a GGUF file, without its tensors.

    Args:
      path: the file.
      prefix: keep only keys with this prefix.

    Returns:
      Values by key: numbers, booleans, strings, and lists of them.

    Raises:
      ValueError: if the file is not GGUF of version 2 or 3, ends too early, or has more
        values than any vocabulary needs; the message names the file and the key.
      OSError: if it cannot be opened.
    """
    with Path(path).open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"a GGUF file must begin with GGUF, got {path}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, str(path)).read(prefix)


class _Reader:
    """Reads forward through a file, with an error past its end."""

    def __init__(self, data: mmap.mmap, path: str) -> None:
        self._data = data
        self._path = path
        self._at = 4
        self._key = "the header"
        self._values = 0

    def read(self, prefix: str) -> dict[str, Any]:
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError(
                f"a GGUF file must be little-endian version 2 or 3, got {version} in "
                f"{self._path}"
            )
        _tensors, keys = self._number("Q"), self._number("Q")
        found = {}
        for _ in range(keys):
            key = self._string()
            self._key = key
            value = self._value(self._number("I"), 0)
            if key.startswith(prefix):
                found[key] = value
        return found

    def _count(self, more: int) -> None:
        """Counts values before they are made."""
        self._values += more
        if self._values > MOST_VALUES:
            raise ValueError(
                f"a GGUF file must have at most {MOST_VALUES} values, got more at "
                f"{self._key!r:.80} in {self._path}"
            )

    def _value(self, kind: int, depth: int) -> Any:
        self._count(1)
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY and depth < _DEEPEST:
            kind, count = self._number("I"), self._number("Q")
            if kind in _NUMBERS:
                self._count(count)
                return list(self._numbers(_NUMBERS[kind], count))
            if kind == _STRING:
                self._count(count)  # before any of them is read
                return [self._string() for _ in range(count)]
            return [self._value(kind, depth + 1) for _ in range(count)]
        raise ValueError(
            f"a GGUF value's type must be in 0..12, got {kind} at {self._key!r:.80} in "
            f"{self._path}"
        )

    def _number(self, code: str) -> Any:
        return self._numbers(code, 1)[0]

    def _numbers(self, code: str, count: int) -> tuple[Any, ...]:
        size = struct.calcsize(f"<{code}") * count
        return struct.unpack(f"<{count}{code}", self._take(size))

    def _string(self) -> str:
        raw = self._take(self._number("Q"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"a GGUF string must be UTF-8, got {raw[:20]!r} at {self._key!r:.80} "
                f"in {self._path}"
            ) from None

    def _take(self, size: int) -> bytes:
        left = len(self._data) - self._at
        if size > left:
            raise ValueError(
                f"a GGUF file must not end inside a value, got {left} bytes for {size} "
                f"at {self._key!r:.80} in {self._path}"
            )
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken
