"""Lines of the battery for losses that look at a teacher."""

import numpy as np

import jaxrl_reason.losses as lib
from tests.losses import reference as ref
from tests.losses.battery import Array, Batch, Case


def _constant_slope(value: Array, slope: Array, x: Array, b: Batch) -> Array:
    """An array with this value at `b.x` and this slope in x."""
    return value + slope * (x - b.x)


def opd(x: Array, b: Batch) -> float:
    d = np.where(b.mask > 0, b.x - b.ref, 0.0)
    return ref.token_mean(_constant_slope(d, d, x, b) * b.weights, b.mask)


def sdpo(x: Array, b: Batch) -> float:
    ratio = np.exp(np.clip(np.where(b.mask > 0, b.old - b.ref, 0.0), -20, 20))
    mask = (b.mask > 0) & (b.sequence_weights > 1)[:, None]
    total = np.where(mask, np.minimum(ratio, 2.0) * x, 0.0).sum()
    return total / max(b.mask.sum(), 1)


CASES = [
    Case(
        "opd_loss",
        lambda x, b, c: lib.opd_loss(x, b.ref, b.mask, c, weights=b.weights)[0],
        opd,
    ),
    Case(
        "gkd_loss",
        lambda x, b, c: lib.gkd_loss(x, b.mask, c)[0],
        lambda x, b: ref.sequence_mean(x, b.mask),
    ),
    Case(
        "sdpo_loss",
        lambda x, b, c: lib.sdpo_loss(
            x, b.old, b.ref, b.mask, c, has_teacher=b.sequence_weights > 1
        )[0],
        sdpo,
    ),
]
