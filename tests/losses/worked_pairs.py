"""Worked numbers of preference, process, game and several objectives (float64)."""

import json
from pathlib import Path
from typing import Any

PAIR_EXAMPLES: dict[str, Any] = json.loads(
    Path(__file__).with_name("worked_pairs.json").read_text(encoding="utf-8")
)
