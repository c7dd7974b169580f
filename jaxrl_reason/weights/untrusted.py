"""JSON and sizes from files that may be hostile."""

import json
from pathlib import Path
from typing import Any

from jaxrl_reason.weights.errors import WeightsError

# An index of a thousand files is far smaller; json.loads needs several times the memory
# of the text.
LARGEST_JSON = 64 * 2**20
# Far above any model, far below sizes that take for ever or overflow.
LARGEST_SIZE, MOST_LAYERS = 2**26, 2**12


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      WeightsError: the file is missing or too large, is not JSON or not an object, or
      has duplicate keys, NaN or Infinity.
    """

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("an object names a key twice")
        return found

    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise ValueError(f"the file has {size} bytes, more than {LARGEST_JSON}")
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_constant=constant, object_pairs_hook=pairs)
    except FileNotFoundError:
        raise WeightsError(f"{path}: the file is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: must hold an object, got {type(value).__name__}")
    return value


def check_size(name: str, value: Any, path: Path) -> None:
    """Raises for a size that no model has; `name` is its name in the file.

    Raises:
      WeightsError: it is not an integer, or out of range.
    """
    largest = MOST_LAYERS if name.endswith(("layers", "block_count")) else LARGEST_SIZE
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= largest:
        raise WeightsError(
            f"{path}: {name} must be a whole number from 1 to {largest}, "
            f"got {value!r:.80}"
        )
