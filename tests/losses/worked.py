"""Worked numbers, computed in float64, and the arrays that they belong to."""

import json
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES: dict[str, Any] = json.loads(
    Path(__file__).with_name("worked_examples.json").read_text(encoding="utf-8")
)

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
OLD = np.array(
    [[-0.5, -1.0, -0.2, -2.0], [-0.7, -0.3, 0, 0], [-1.2, -0.4, -0.9, 0], [-3, 0, 0, 0]]
)
NEW = np.array(
    [
        [-0.4, -1.3, -0.2, -1.2],
        [-1.2, -0.25, 0, 0],
        [-0.9, -0.5, -1.0, 0],
        [-0.5, 0, 0, 0],
    ]
)
REF = np.array(
    [[-0.6, -0.9, -0.3, -1.5], [-0.7, -0.5, 0, 0], [-1, -0.6, -0.8, 0], [-0.9, 0, 0, 0]]
)
# What the sampler reported.
SAMPLER = np.array(
    [
        [-0.5, -1.1, -0.2, -2.9],
        [-0.7, -0.25, 0, 0],
        [-1.2, -0.4, -0.9, 0],
        [-2.0, 0, 0, 0],
    ]
)
ADVANTAGES = np.array([1.0, -1.0, 0.5, -2.0])
# The per-token values of the reduction examples, with garbage outside the mask.
VALUES = np.array(
    [[1, 2, 3, 4], [5, 6, np.nan, 1e6], [7, 8, 9, np.inf], [10, -1e6, np.nan, 0]]
)


def close(
    actual: Any, expected: Any, *, rtol: float = 1e-6, atol: float = 1e-6
) -> None:
    """Equal to the library's stated tolerance: 1e-6, float32."""
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), np.asarray(expected), rtol=rtol, atol=atol
    )
