"""Worked numbers of the policy objectives beside PPO's, computed in float64."""

import json
from pathlib import Path
from typing import Any

EXAMPLES: dict[str, Any] = json.loads(
    Path(__file__).with_name("worked_objectives.json").read_text(encoding="utf-8")
)
