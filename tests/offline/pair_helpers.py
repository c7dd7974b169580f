"""Pairs, the methods that learn from them, and small sizes."""

import math

from jaxrl_reason.offline.preference_batch import Pair, PreferenceSettings
from jaxrl_reason.offline.preference_methods import (
    dpo,
    hinge,
    ipo,
    irpo,
    length_normalised_dpo,
    nca,
    orpo,
    robust_dpo,
    simpo,
)

SETTINGS = PreferenceSettings(
    pairs_per_update=4,
    epochs=2,
    rows_per_micro_batch=1,
    row_width=24,
    pairs_per_row=2,
    max_prompt=4,
    max_response=8,
)
PAIRS = [
    Pair([3, 4], [7, 8, 1], [5, 1]),
    Pair([5], [9, 1], [4, 4, 4, 10, 2]),
    Pair([6, 6, 6], [7] * 7 + [1], [8, 2]),
    Pair([3], [8, 8, 2], [3, 11, 6, 6, 1]),
]
METHODS = [
    dpo(),
    dpo(beta=0.5, label_smoothing=0.1),
    robust_dpo(),
    ipo(),
    hinge(beta=0.3),
    nca(beta=0.3),
    length_normalised_dpo(),
    irpo(),
    simpo(),
    orpo(),
]


def ids(method):
    return f"{method.name}-{method.settings.get('label_smoothing', '')}"


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))
