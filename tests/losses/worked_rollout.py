"""Worked numbers of rollout correction, rewards, controllers and strategies."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.losses import worked

EXAMPLES: dict[str, Any] = {
    **worked.EXAMPLES,
    **json.loads(
        Path(__file__).with_name("worked_rollout.json").read_text(encoding="utf-8")
    ),
}

# What the sampler reported in the worked examples.
SAMPLER = np.array(
    [
        [-0.5, -1.1, -0.2, -2.9],
        [-0.7, -0.25, 0, 0],
        [-1.2, -0.4, -0.9, 0],
        [-2.0, 0, 0, 0],
    ]
)
