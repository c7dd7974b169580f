"""What a file of weights offers to the loader."""

from pathlib import Path
from typing import Protocol

import numpy as np

from jaxrl_reason.weights.layouts import Index
from jaxrl_reason.weights.names import Row


class TensorSource(Protocol):
    """Tensors by name, read a part at a time.

    Args:
      path: the folder or file, for messages.
      shapes: the shape of every tensor under the name it has in the file.
      interleaved: rotary halves of queries and keys lie pair by pair.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    interleaved: bool

    def name(self, row: Row, layer: int | None) -> str:
        """What the file calls a row of the table; layer is None where it has none."""
        ...

    def read(self, name: str, index: Index) -> np.ndarray:
        """The part `index` of a tensor, in a floating-point type."""
        ...

    def is_recomputed(self, name: str) -> bool:
        """Whether a tensor holds nothing but what the model works out by itself."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...
