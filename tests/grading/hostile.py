"""Reads the rows of hostile inputs: their long texts are written as recipes."""

import json
from pathlib import Path
from typing import Any


def text_of(recipe: Any) -> Any:
    """The text of {"repeat": [text, times]} and {"concat": [parts]}; others as is."""
    if isinstance(recipe, dict) and "repeat" in recipe:
        piece, times = recipe["repeat"]
        return piece * times
    if isinstance(recipe, dict) and "concat" in recipe:
        return "".join(text_of(part) for part in recipe["concat"])
    return recipe


def rows_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a kind in a file."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["kind"] == kind]
