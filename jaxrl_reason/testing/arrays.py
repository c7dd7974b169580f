"""Arrays of a mini-batch to check a loss on, and their transformations.

All are NumPy arrays by name, so that losses in JAX and in torch get the same.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

Arrays = dict[str, Any]

ROWS, TOKENS, NUM_GROUPS = 8, 6, 3
# The arguments of every loss, in order, before the counts.
PER_TOKEN = ("logprobs", "old_logprobs", "advantages")
# What a loss may take by keyword, as in a method of the training loop.
INPUTS = (
    "entropy",
    "ref_logprobs",
    "sampler_logprobs",
    "weights",
    "group_ids",
    "selected",
    "correct",
)
# Passed along with another input: a loss that takes one takes the other.
COMPANIONS = {"group_ids": "num_groups", "correct": "positive_counts"}
_LOGPROBS = "_logprobs"


def is_input(name: str) -> bool:
    """Whether the checks can make an array of this name."""
    return name in INPUTS or (name.endswith(_LOGPROBS) and name != "old_logprobs")


def random_arrays(seed: int, inputs: Collection[str] = ()) -> Arrays:
    """Arrays of a mini-batch: ratios on both sides of a clip, one row fully masked.

    Args:
      seed: of the draw.
      inputs: names in addition to those of every loss, among `INPUTS` or ending in
        `_logprobs`.

    Returns:
      logprobs, old_logprobs, advantages [B, T] float32; mask [B, T] bool, each row a
      prefix, of the lengths T, 1, 0 and others; group_ids [B] int32; the inputs.
    """
    rng = np.random.default_rng(seed)
    shape = (ROWS, TOKENS)
    lengths = np.array([TOKENS, 1, 0, *rng.integers(1, TOKENS + 1, ROWS - 3)])
    old = rng.uniform(-3.0, -0.1, shape)
    drawn = {
        "logprobs": old + rng.normal(0.0, 0.4, shape),
        "old_logprobs": old,
        "advantages": np.repeat(rng.normal(size=(ROWS, 1)), TOKENS, axis=1),
        "entropy": rng.uniform(0.1, 2.0, shape),
        "ref_logprobs": old + rng.normal(0.0, 0.3, shape),
        "sampler_logprobs": old + rng.normal(0.0, 0.1, shape),
        "weights": rng.uniform(0.5, 1.5, shape),
    }
    arrays: Arrays = {
        name: x.astype(np.float32)
        for name, x in drawn.items()
        if name in PER_TOKEN or name in inputs
    }
    arrays["mask"] = np.arange(TOKENS) < lengths[:, None]
    arrays["group_ids"] = rng.integers(0, NUM_GROUPS, ROWS).astype(np.int32)
    if "selected" in inputs:
        arrays["selected"] = rng.random(shape) < 0.3
    if "correct" in inputs:
        arrays["correct"] = np.arange(ROWS) % 2 == 0
    for name in inputs:
        if name.endswith(_LOGPROBS) and name not in arrays:
            far = old + rng.normal(0.0, 0.3, shape)
            arrays[name] = far.astype(np.float32)
    return arrays


def floats_of(arrays: Arrays) -> list[str]:
    """Names of the floating arrays."""
    return [name for name, x in arrays.items() if x.dtype == np.float32]


def at_ratio_one(arrays: Arrays) -> Arrays:
    """All log-probs equal, rows of A = 1 and -1, a hole, a left-padded row.

    Nothing is selected, no row is correct and weights are 1, so that only the ratio
    matters.
    """
    rows, width = arrays["mask"].shape
    mask = arrays["mask"].copy()
    mask[0, width // 2] = False  # a hole in the longest row
    mask[3] = np.arange(width) >= width - 2
    signs = np.where(np.arange(rows) % 2, -1.0, 1.0)[:, None]
    changed: Arrays = {
        name: arrays["old_logprobs"] for name in arrays if name.endswith("logprobs")
    }
    changed["advantages"] = np.broadcast_to(signs, mask.shape).astype(np.float32)
    for name, value in {"selected": 0, "correct": 0, "weights": 1}.items():
        if name in arrays:
            changed[name] = np.full_like(arrays[name], value)
    return {**arrays, **changed, "mask": mask}


def ladder(log_ratios: np.ndarray, sign: float, arrays: Arrays) -> Arrays:
    """One row of one token for each log-ratio, with the advantage `sign`.

    All rows are in one group, weights are 1, nothing is selected, and the reference and
    the sampler agree with the old policy.
    """
    rows, width = len(log_ratios), arrays["mask"].shape[1]
    old = np.full((rows, width), -1.375, np.float32)
    made: Arrays = {
        name: np.resize(x, (rows, *x.shape[1:])) for name, x in arrays.items()
    }
    for name in arrays:
        if name.endswith("logprobs"):
            made[name] = old
    made["logprobs"] = (old + log_ratios[:, None]).astype(np.float32)
    made["advantages"] = np.full_like(old, sign)
    made["mask"] = np.broadcast_to(np.arange(width) == 0, old.shape)
    neutral = {"weights": 1, "entropy": 1, "selected": 0, "correct": 0, "group_ids": 0}
    for name, value in neutral.items():
        if name in made:
            made[name] = np.full_like(made[name], value)
    return made


def under_mask(arrays: Arrays, value: float, mask: np.ndarray | None = None) -> Arrays:
    """Writes `value` into every floating array where the mask is 0."""
    mask = arrays["mask"] if mask is None else mask
    return {
        name: np.where(mask, x, np.float32(value))
        if x.dtype == np.float32 and x.ndim == 2
        else x
        for name, x in arrays.items()
    }


def take(arrays: Arrays, rows: Any) -> Arrays:
    """A subset of the rows."""
    return {name: x[rows] for name, x in arrays.items()}


def moved(arrays: Arrays, places: np.ndarray, rows: int, width: int) -> Arrays:
    """The arrays in a larger batch of zeros, with row i's token t at places[i, t].

    The rows come last in the larger batch, after masked rows.
    """
    at = np.arange(rows - len(places), rows)

    def put(x: np.ndarray) -> np.ndarray:
        if x.ndim == 1:
            made = np.zeros(rows, x.dtype)
            made[at] = x
            return made
        made = np.zeros((rows, width), x.dtype)
        made[at[:, None], places] = x
        return made

    return {name: put(np.asarray(x)) for name, x in arrays.items()}
