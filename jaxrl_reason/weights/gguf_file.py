"""Tensors and settings of a .gguf file."""

import struct
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl_reason.text.gguf_metadata import MOST_VALUES
from jaxrl_reason.weights.errors import WeightsError
from jaxrl_reason.weights.layouts import Index
from jaxrl_reason.weights.names import Row

ROPE_FACTORS = "rope_freqs.weight"


# Parts of a file that are read: a tensor has six, a setting up to five, and files have
# thousands of either. Elements of longer arrays, a tokenizer's, are not read here.
_MOST_PARTS, _LONGEST_ARRAY = 2**18, 2**12


def _reader(path: Path) -> Any:
    import gguf

    array, text = gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING

    class BoundedReader(gguf.GGUFReader):
        parts = 0

        # Past the end of the file the package's reader yields empty arrays; with an
        # impossible length it would loop for ever.
        def _get(
            self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
        ) -> Any:
            self.parts += 1
            if self.parts > _MOST_PARTS:
                raise ValueError(f"it has more than {_MOST_PARTS} parts")
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, before {end}")
            return super()._get(offset, dtype, count, override_order)

        # It would keep two arrays for each element.
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != array:
                return super()._get_field_parts(orig_offs, raw_type)
            head = [
                self._get(orig_offs, np.uint32),
                self._get(orig_offs + 4, np.uint64),
            ]
            kind, count = gguf.GGUFValueType(head[0][0]), int(head[1][0])
            if count <= _LONGEST_ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            start = orig_offs + 12
            if kind in self.gguf_scalar_to_np:
                end = start + np.dtype(self.gguf_scalar_to_np[kind]).itemsize * count
            elif kind == text:
                end = _end_of_texts(self.data, start, count, self.byte_order)
            else:
                raise ValueError(f"an array of {count} must be of numbers or texts")
            if end > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data)}, before {end}")
            return end - orig_offs, head, [], [array, kind]

    return BoundedReader(path)


def _end_of_texts(data: np.ndarray, start: int, count: int, order: str) -> int:
    """Where an array of texts ends; each has its length before it."""
    if count > MOST_VALUES:
        raise ValueError(f"an array must have at most {MOST_VALUES} values")
    length = struct.Struct(
        "Q" if order == "I" else "<Q" if sys.byteorder == "big" else ">Q"
    )
    held: Any = data.data
    for _ in range(count):
        start += 8 + length.unpack_from(held, start)[0]
    return start


class GGUFFile:
    """A .gguf file, opened once; tensors are dequantised as they are read.

    Args:
      path: the file.

    Raises:
      WeightsError: it is missing or damaged, or a tensor has a type that the gguf
      package cannot dequantise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open = _reader(path)
        except FileNotFoundError:
            raise WeightsError(f"{path}: the file is missing") from None
        except Exception as error:
            # The package raises any error of its array operations on bad bytes.
            raise WeightsError(
                f"{path}: damaged or not a GGUF file: {type(error).__name__}: {error}"
            ) from error
        self._tensors = {tensor.name: tensor for tensor in self._open.tensors}
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }
        # Files of the llama architecture interleave the rotary halves.
        self.interleaved = self.metadata.get("general.architecture") == "llama"

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The file's fields, without those of the tokenizer."""
        try:
            return {
                name: field.contents()
                for name, field in self._open.fields.items()
                if not name.startswith("tokenizer.") or name.endswith("_token_id")
            }
        except Exception as error:
            raise WeightsError(f"{self.path}: damaged: {error}") from error

    def name(self, row: Row, layer: int | None) -> str:
        """The GGUF name of a row of the table."""
        return row.gguf.format(layer)

    def read(self, name: str, index: Index) -> np.ndarray:
        """The part `index` of a tensor, dequantised to float32."""
        from gguf import quants

        tensor = self._tensors[name]
        # Rows are whole blocks, so they are sliced before dequantising, columns after.
        rows = np.ascontiguousarray(tensor.data[index[0]])
        try:
            values = quants.dequantize(rows, tensor.tensor_type)
        except NotImplementedError as error:
            raise WeightsError(f"{self.path}: {name}: {error}") from error
        return values[(slice(None), *index[1:])]

    def is_recomputed(self, name: str) -> bool:
        """Whether it is the table of rotary factors, which is part of the config."""
        return name == ROPE_FACTORS

    def close(self) -> None:
        """Closes the file."""
        self._tensors = {}
        self._open = None
