"""Losses that are wrong in one way each, and the law that must name the way.

All are the clipped surrogate averaged over tokens, of which `right` is the right form,
unless the fault is of something else. `NUMPY` is that form in NumPy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import token_mean

sg = jax.lax.stop_gradient
LOW, HIGH = 0.2, 0.28


def as_mask(mask):
    return jnp.asarray(mask).astype(bool)


def log_ratio_of(logprobs, old, mask):
    new, old = logprobs.astype(jnp.float32), sg(old).astype(jnp.float32)
    return jnp.clip(jnp.where(mask, new - old, 0.0), -20.0, 20.0)


def constant(x, mask):
    return sg(jnp.where(mask, x, 0.0).astype(jnp.float32))


def surrogate(ratio, a, low=LOW, high=HIGH):
    return jnp.maximum(-a * ratio, -a * jnp.clip(ratio, 1 - low, 1 + high))


def tokens_of(logprobs, old, advantages, mask):
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    return surrogate(ratio, constant(advantages, mask))


def mean(x, mask, counts):
    return jnp.where(mask, x, 0.0).sum() / jnp.maximum(counts.tokens, 1)


def total(x, mask):
    return jnp.where(mask, sg(x), 0.0).sum(), mask.sum().astype(jnp.float32)


def right(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    tokens = tokens_of(logprobs, old, advantages, mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    return mean(tokens, mask, counts), {"ratio": total(ratio, mask)}


def in_numpy(logprobs, old, advantages, mask):
    ratio = np.exp(logprobs - old)
    clipped = np.clip(ratio, 1 - LOW, 1 + HIGH)
    tokens = np.maximum(-advantages * ratio, -advantages * clipped)
    return tokens[mask].sum() / max(mask.sum(), 1)


# Of the mask.


def prefix_for_the_mask(logprobs, old, advantages, mask, counts):
    lengths = as_mask(mask).sum(1)[:, None]
    prefix = jnp.arange(mask.shape[1])[None] < lengths
    return right(logprobs, old, advantages, prefix, counts)


def inverts_the_bits_of_ints(logprobs, old, advantages, mask, counts):
    if mask.dtype == jnp.float32:
        mask = mask.astype(bool)
    dropped = (~mask).astype(bool)  # ~1 is -2, which is True
    return right(logprobs, old, advantages, ~dropped, counts)


def takes_bools_alone(logprobs, old, advantages, mask, counts):
    return right(logprobs, old, advantages, ~~mask, counts)


def multiplies_by_the_mask(logprobs, old, advantages, mask, counts):
    ratio = jnp.exp(jnp.clip(logprobs.astype(jnp.float32) - sg(old), -20.0, 20.0))
    return (surrogate(ratio, sg(advantages)) * mask).sum() / counts.tokens, {}


def no_mask(logprobs, old, advantages, mask, counts):
    everywhere = jnp.ones_like(as_mask(mask))
    return right(logprobs, old, advantages, everywhere, counts)


def drops_the_last_token(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    later = jnp.cumsum(mask[:, ::-1], axis=1)[:, ::-1]
    return right(logprobs, old, advantages, mask & (later > 1), counts)


def discounts_by_column(logprobs, old, advantages, mask, counts):
    fall = 0.9 ** jnp.arange(mask.shape[1])[None]
    return right(logprobs, old, advantages * fall, mask, counts)


def keeps_the_first_columns(logprobs, old, advantages, mask, counts):
    early = jnp.arange(mask.shape[1])[None] < 6
    return right(logprobs, old, advantages, as_mask(mask) & early, counts)


# Of the denominator.


def sequences_for_tokens(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return value * counts.tokens / jnp.maximum(counts.sequences, 1), metrics


def tokens_at_hand(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return value * counts.tokens / jnp.maximum(mask.sum(), 1), metrics


def rows_at_hand(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    tokens = tokens_of(logprobs, old, advantages, mask)
    rows = jnp.where(mask, tokens, 0.0).sum(1) / jnp.maximum(mask.sum(1), 1)
    return rows.mean(), {}


def width_of_the_padding(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    fraction = counts.tokens / (jnp.maximum(counts.sequences, 1) * mask.shape[1])
    return value * fraction, metrics


def empty_is_nan(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return value * counts.tokens / counts.tokens, metrics


def whitens_at_hand(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    a = constant(advantages, mask)
    centred = a - a.sum() / jnp.maximum(mask.sum(), 1)
    return right(logprobs, old, centred, mask, counts)


def centres_groups_at_hand(
    logprobs, old, advantages, mask, counts, *, group_ids, num_groups
):
    mask = as_mask(mask)
    a = constant(advantages, mask)
    sums = jax.ops.segment_sum(a.sum(1), group_ids, num_groups)
    sizes = jax.ops.segment_sum(mask.sum(1), group_ids, num_groups)
    means = (sums / jnp.maximum(sizes, 1))[group_ids][:, None]
    return right(logprobs, old, a - means, mask, counts)


def later_groups_weigh_more(
    logprobs, old, advantages, mask, counts, *, group_ids, num_groups
):
    weights = (1.0 + group_ids)[:, None]
    return right(logprobs, old, advantages * weights, mask, counts)


# Of the numbers.


def unbounded(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    new, old = logprobs.astype(jnp.float32), sg(old).astype(jnp.float32)
    ratio = jnp.exp(jnp.where(mask, new - old, 0.0))
    return mean(-constant(advantages, mask) * ratio, mask, counts), {}


def nan_slope_at_ratio_one(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    mask = as_mask(mask)
    squares = jnp.where(mask, log_ratio_of(logprobs, old, mask) ** 2, 0.0).sum(1)
    rows = mask.any(1)
    norms = jnp.where(rows, jnp.sqrt(jnp.where(rows, squares, 1.0)), 0.0)
    return value + 0.01 * norms.sum() / jnp.maximum(counts.tokens, 1), metrics


def coarse_difference(logprobs, old, advantages, mask, counts):
    difference = (logprobs - sg(old)).astype(jnp.float32)
    return right(difference, jnp.zeros_like(difference), advantages, mask, counts)


def coarse_slope(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    a = constant(advantages, mask)
    value = mean(surrogate(ratio, a), mask, counts)
    rounded = sg(ratio).astype(jnp.bfloat16).astype(jnp.float32)
    new = jnp.where(mask, logprobs, 0.0)
    inside = jnp.where(a > 0, ratio <= 1 + HIGH, ratio >= 1 - LOW)
    slope = mean(jnp.where(inside, -a * rounded * new, 0.0), mask, counts)
    return sg(value) + slope - sg(slope), {}


def half_precision_value(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return value.astype(jnp.bfloat16), metrics


def hides_nan(logprobs, old, advantages, mask, counts):
    logprobs = jnp.nan_to_num(logprobs, nan=-1.0)
    return right(logprobs, old, advantages, mask, counts)


# Of the gradient.


def flipped_sign(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return -value, metrics


def ratio_upside_down(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(-log_ratio_of(logprobs, old, mask))
    return mean(surrogate(ratio, constant(advantages, mask)), mask, counts), {}


def no_gradient(logprobs, old, advantages, mask, counts):
    return right(sg(logprobs), old, advantages, mask, counts)


def ratio_with_a_gradient(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))  # CISPO's is a constant
    new = jnp.where(mask, logprobs.astype(jnp.float32), 0.0)
    return mean(
        -jnp.minimum(ratio, 5.0) * constant(advantages, mask) * new, mask, counts
    ), {}


def old_has_a_gradient(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    new, old = logprobs.astype(jnp.float32), old.astype(jnp.float32)
    ratio = jnp.exp(jnp.clip(jnp.where(mask, new - old, 0.0), -20.0, 20.0))
    return mean(surrogate(ratio, constant(advantages, mask)), mask, counts), {}


def advantages_have_a_gradient(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    a = jnp.where(mask, advantages.astype(jnp.float32), 0.0)
    return mean(surrogate(ratio, a), mask, counts), {}


def weights_have_a_gradient(logprobs, old, advantages, mask, counts, *, weights):
    mask = as_mask(mask)
    tokens = tokens_of(logprobs, old, advantages, mask)
    weights = jnp.where(mask, weights.astype(jnp.float32), 0.0)
    return mean(weights * tokens, mask, counts), {}


def weighted_in_numpy(logprobs, old, advantages, mask, *, weights):
    return in_numpy(logprobs, old, advantages * weights, mask)


def pushes_at_ratio_one(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    distance = jnp.abs(log_ratio_of(logprobs, old, as_mask(mask)))
    return value + 0.01 * mean(distance, as_mask(mask), counts), metrics


def pushes_from_the_reference(logprobs, old, advantages, mask, counts, *, ref_logprobs):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    mask = as_mask(mask)
    d = log_ratio_of(logprobs, ref_logprobs, mask)
    return value - 0.05 * mean(d**2, mask, counts), metrics


def pulled_in_numpy(logprobs, old, advantages, mask, *, ref_logprobs):
    d = (logprobs - ref_logprobs)[mask]
    return in_numpy(logprobs, old, advantages, mask) + 0.05 * (d**2).mean()


# Of the clip.


def largest_for_smallest(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    a = constant(advantages, mask)
    clipped = -a * jnp.clip(ratio, 1 - LOW, 1 + HIGH)
    return mean(jnp.minimum(-a * ratio, clipped), mask, counts), {}


def bounds_swapped(
    logprobs, old, advantages, mask, counts, *, clip_low=LOW, clip_high=HIGH
):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    tokens = surrogate(ratio, constant(advantages, mask), clip_high, clip_low)
    return mean(tokens, mask, counts), {}


def clips_on_both_sides(logprobs, old, advantages, mask, counts):
    mask = as_mask(mask)
    ratio = jnp.exp(log_ratio_of(logprobs, old, mask))
    clipped = jnp.clip(ratio, 1 - LOW, 1 + HIGH)
    return mean(-constant(advantages, mask) * clipped, mask, counts), {}


# Of what comes back and what stays behind.


def nan_metric(logprobs, old, advantages, mask, counts):
    value, _ = right(logprobs, old, advantages, mask, counts)
    mask = as_mask(mask)
    rows = jnp.where(mask, sg(logprobs), 0.0).sum(1) / mask.sum(1)
    return value, {"logprob": (rows.sum(), jnp.float32(len(rows)))}


def bare_metric(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    return value, {**metrics, "loss": sg(value)}


def mean_as_metric(logprobs, old, advantages, mask, counts):
    value, metrics = right(logprobs, old, advantages, mask, counts)
    sums, tokens = metrics["ratio"]
    return value, {"ratio": (sums / jnp.maximum(tokens, 1), jnp.float32(1))}


def bare_value(logprobs, old, advantages, mask, counts):
    return right(logprobs, old, advantages, mask, counts)[0]


def looks_at_values(logprobs, old, advantages, mask, counts):
    if mask.sum() == 0:
        return jnp.float32(0), {}
    return right(logprobs, old, advantages, mask, counts)


class RunningScale:
    """Divides by the largest advantage of all calls."""

    __name__ = "running_scale"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, logprobs, old, advantages, mask, counts):
        self.calls += 1
        value, metrics = right(logprobs, old, advantages, mask, counts)
        return value * (1 - 0.5**self.calls), metrics


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
      kind: in words.
      loss: wrong in this way alone.
      law: the law that names it without a reference; None where the loss is that of
        some other method.
      reference: what it should have been, in NumPy.
    """

    kind: str
    loss: Callable[..., Any]
    law: str | None
    reference: Callable[..., Any] = in_numpy

    def __str__(self) -> str:
        return self.kind


# The kinds of issue threads and of reviews, in no order.
FAULTS = [
    Fault("prefix taken for the mask", prefix_for_the_mask, "holes"),
    Fault("~mask on ints", inverts_the_bits_of_ints, "mask types"),
    Fault("nan slope at ratio 1", nan_slope_at_ratio_one, "ratio 1"),
    Fault("penalty pushes at ratio 1", pushes_at_ratio_one, "rest"),
    Fault("flipped sign", flipped_sign, "sign"),
    Fault("no gradient", no_gradient, "signal"),
    Fault("max for min in the clip", largest_for_smallest, "clip"),
    Fault("sequences for tokens", sequences_for_tokens, None),
    Fault("metric is nan", nan_metric, "metrics"),
    Fault("metric is no pair", bare_metric, "metrics"),
    Fault("metric is a mean of the rows at hand", mean_as_metric, "metrics"),
    Fault(
        "weights have a gradient",
        weights_have_a_gradient,
        "constants",
        weighted_in_numpy,
    ),
    Fault("slope rounded to bfloat16", coarse_slope, "smooth"),
    Fault("state between calls", RunningScale(), "state"),
    Fault("last token dropped", drops_the_last_token, "signal"),
    Fault("left padding counted by position", discounts_by_column, "places"),
    Fault("first columns for the response", keeps_the_first_columns, "places"),
    Fault("tokens at hand for those of the batch", tokens_at_hand, "micro-batches"),
    Fault("rows at hand for those of the batch", rows_at_hand, "micro-batches"),
    Fault("width of the padding in the denominator", width_of_the_padding, "padding"),
    Fault("no mask", no_mask, "garbage"),
    Fault("product with the mask", multiplies_by_the_mask, "garbage"),
    Fault("mask of bools alone", takes_bools_alone, "mask types"),
    Fault("inf at extreme ratios", unbounded, "extremes"),
    Fault("0 / 0 for an empty mask", empty_is_nan, "empty"),
    Fault("difference in bfloat16", coarse_difference, "bfloat16"),
    Fault("value in bfloat16", half_precision_value, "form"),
    Fault("old log-probs have a gradient", old_has_a_gradient, "constants"),
    Fault("advantages have a gradient", advantages_have_a_gradient, "constants"),
    Fault("ratio of CISPO has a gradient", ratio_with_a_gradient, "sign"),
    Fault("ratio upside down", ratio_upside_down, "sign"),
    Fault("whitened over the rows at hand", whitens_at_hand, "micro-batches"),
    Fault(
        "groups centred over the rows at hand",
        partial(centres_groups_at_hand),
        "micro-batches",
    ),
    Fault("group number as a weight", later_groups_weigh_more, "order"),
    Fault("clip bounds swapped", bounds_swapped, "clip bounds"),
    Fault("clip on both sides", clips_on_both_sides, None),
    Fault(
        "pushed from the reference policy",
        pushes_from_the_reference,
        "reference policy",
        pulled_in_numpy,
    ),
    Fault("nan hidden", hides_nan, "nan"),
    Fault("no dict of metrics", bare_value, "form"),
    Fault("looks at values", looks_at_values, "jit"),
]


def masked_mean(logprobs, old, advantages, mask, counts):
    """The right form by the library's own mean."""
    mask = as_mask(mask)
    return token_mean(tokens_of(logprobs, old, advantages, mask), mask, counts), {}
