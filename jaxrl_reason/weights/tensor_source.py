"""The interface of a file of weights for the loader."""

from pathlib import Path
from typing import Protocol

import numpy as np

from jaxrl_reason.weights.layouts import Index
from jaxrl_reason.weights.names import Row


class TensorSource(Protocol):
    """Tensors by name, read a part at a time.

    Args:
      path: the folder or file, for messages.
      shapes: the shape of every tensor, by its name in the file.
      interleaved: whether rotary halves of queries and keys are interleaved.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    interleaved: bool

    def name(self, row: Row, layer: int | None) -> str:
        """The file's name for a row of the table; layer is None if it has none."""
        ...

    def read(self, name: str, index: Index) -> np.ndarray:
        """The part `index` of a tensor, in a floating-point dtype."""
        ...

    def is_recomputed(self, name: str) -> bool:
        """Whether a tensor only has values that the model computes itself."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...
