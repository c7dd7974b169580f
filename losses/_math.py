"""Arithmetic on checked arrays: ratios, means, groups of responses, moments.

Masks are bool and numbers float32: public functions check what they are given
(`_checks`, `_policy`), then compute with these; only `read_groups` and `statistics`,
with which all group advantages begin, check too. Everything stays finite: select and
bound before exp, avoid cancellation.
"""

import dataclasses
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks

Metrics = dict[str, tuple[jax.Array, jax.Array]]

# exp(20) is about 5e8: far past any clip, far from float32's overflow.
LOG_RATIO_BOUND = 20.0

# 1/n for n = 10 .. 3, the nested factors of the series of exp(-d) - 1 + d.
_SERIES = tuple(1.0 / n for n in range(10, 2, -1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counts:
    """Denominators of one mini-batch: whole numbers, int32.

    Attributes:
      tokens: [] tokens inside the mask.
      sequences: [] rows with a token inside the mask.
      groups: [] groups with such a row; None where no group ids were given.
      group_tokens: [num_groups] tokens of each group; None likewise.
    """

    tokens: jax.Array
    sequences: jax.Array
    groups: jax.Array | None = None
    group_tokens: jax.Array | None = None


def whole(x: jax.Array, *axes: int) -> jax.Array:
    """`x` with these axes (all if none is named) replicated on every device.

    Where a mesh with explicit axes shards an array, JAX refuses to sort, index or sum
    along a sharded axis. In all other cases `x` is unchanged: on one device, under
    automatic axes, which the compiler handles, and inside `shard_map`.
    """
    spec = jax.typeof(x).sharding.spec
    kept = [None if not axes or i in axes else split for i, split in enumerate(spec)]
    if list(spec) == kept:
        return x
    gathered: jax.Array = jax.sharding.reshard(x, PartitionSpec(*kept))
    return gathered


def zero_masked(x: jax.Array, mask: jax.Array) -> jax.Array:
    """`x` where the mask is set, else 0; values outside may be nan."""
    return jnp.where(mask, x, 0.0)


def bounded_exp(log_ratio: jax.Array) -> jax.Array:
    """exp of a log-ratio clipped to +-20; the gradient outside is 0."""
    return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_BOUND, LOG_RATIO_BOUND))


def k3(d: jax.Array) -> jax.Array:
    """exp(-d) - 1 + d without cancellation; never negative, never infinite.

    Near 0 the three terms cancel, by expm1 too: at d = 1e-3 float32 keeps four digits.
    There the series d^2/2 (1 - d/3 (1 - d/4 (...))) is used, whose factors stay
    positive. Below -20 the value stays that of -20 and the gradient is 0.
    """
    d = jnp.maximum(d, -LOG_RATIO_BOUND)
    small = jnp.abs(d) < 0.5
    # Each branch sees only its own arguments: no inf or nan enters a gradient.
    near, far = jnp.where(small, d, 0.0), jnp.where(small, 1.0, d)
    series = jnp.ones_like(d)
    for factor in _SERIES:
        series = 1.0 - near * factor * series
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(-far) + far)


def accurate_sum(x: jax.Array, axis: int | None = None) -> jax.Array:
    """Sum over one axis, or all, of which another order hardly changes a digit.

    All numbers of a row are cut at one place, which the sum of their sizes gives. The
    leading parts add up without rounding, in the order of any mesh, and the rest is too
    small for its rounding to count. The gradient is that of the plain sum.
    """
    if x.ndim == 0:
        return x
    along = -1 if axis is None else axis
    fixed = jax.lax.stop_gradient(x)
    cut = 4.0 * jnp.sum(jnp.abs(fixed), axis=along, keepdims=True)
    lead = jnp.where(jnp.isfinite(cut), (fixed + cut) - cut, 0.0)
    leads, rest = jnp.sum(lead, axis=along), jnp.sum(x - lead, axis=along)
    return leads + rest if axis is not None else accurate_sum(leads) + jnp.sum(rest)


def at_least_one(count: jax.Array) -> jax.Array:
    """A denominator: an empty mini-batch has sums of 0, and 0 / 1 is its mean."""
    return jnp.maximum(count, 1).astype(jnp.float32)


def mean_over_tokens(x: jax.Array, mask: jax.Array, counts: Counts) -> jax.Array:
    """sum_it m_it x_it / N, N the tokens of the mini-batch."""
    # Spelt out: a call of a loss passes through few functions.
    total = jnp.sum(jnp.where(mask, x, 0.0))
    return total / jnp.maximum(counts.tokens, 1).astype(jnp.float32)


def share(part: jax.Array, count: jax.Array, like: jax.Array) -> jax.Array:
    """One number of things over another, 0 over 0, in the type of an array."""
    return part.astype(like.dtype) / jnp.maximum(count, 1).astype(like.dtype)


def row_means(x: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] -> [B]: each row's mean over its tokens, 0 for a row without any."""
    return jnp.sum(zero_masked(x, mask), axis=1) / at_least_one(jnp.sum(mask, axis=1))


def mean_over_sequences(x: jax.Array, mask: jax.Array, counts: Counts) -> jax.Array:
    """1/N sum_i (1/n_i) sum_t m_it x_it, N the sequences of the mini-batch."""
    return jnp.sum(row_means(x, mask)) / at_least_one(counts.sequences)


def mean_of_sequence_sums(x: jax.Array, mask: jax.Array, counts: Counts) -> jax.Array:
    """1/N sum_it m_it x_it, N the sequences of the mini-batch."""
    return accurate_sum(zero_masked(x, mask)) / at_least_one(counts.sequences)


def metric_total(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum over the mask, its count), without gradient; any shape."""
    x = jax.lax.stop_gradient(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    return accurate_sum(jnp.where(mask, x, 0.0)), jnp.sum(mask, dtype=jnp.float32)


def number_of_tokens(fraction: float | jax.Array, mask: jax.Array) -> jax.Array:
    """max(1, floor(fraction N)) as an int32 scalar, N the tokens inside the mask."""
    tokens = jnp.sum(mask, dtype=jnp.int32)
    if isinstance(fraction, int | float):
        # In whole numbers: p (a q + b) / q = a p + b p / q, where b p < q^2 < 2^31.
        exact = Fraction(repr(fraction)).limit_denominator(46340)
        p, q = exact.numerator, exact.denominator
        number = tokens // q * p + tokens % q * p // q
    else:
        # The slack exceeds the rounding error of products that are whole numbers.
        number = jnp.floor(fraction * tokens * (1.0 + 2.0**-22)).astype(jnp.int32)
    return jnp.maximum(number, 1)


def top_tokens(scores: jax.Array, eligible: jax.Array, number: jax.Array) -> jax.Array:
    """The `number` eligible tokens of highest score, or all if there are fewer.

    By rank, as the number is traced; equal scores rank by position, so that never more
    than the number are chosen.
    """
    ranked = whole(jnp.where(eligible, -scores, jnp.inf))
    order = jnp.argsort(ranked.ravel(), stable=True)
    rank = jnp.argsort(order).reshape(scores.shape)
    return eligible & (rank < number)


class Groups(NamedTuple):
    """B sequences in groups that are given by ids, of any sizes and in any order."""

    ids: jax.Array  # [B] int32 group of each sequence, safe to index with, not split
    member: jax.Array  # [B] bool, valid and in a group
    number: int  # of groups, static

    def total(self, x: jax.Array) -> jax.Array:
        """[B] -> [num_groups] sums over the members."""
        x = whole(jnp.where(self.member, x, 0))
        return jax.ops.segment_sum(x, self.ids, self.number)


class Statistics(NamedTuple):
    """Rewards relative to their group's mean."""

    groups: Groups
    sizes: jax.Array  # [num_groups] in the type of the rewards
    low: jax.Array  # [num_groups] smallest reward; inf where empty
    high: jax.Array  # [num_groups] largest reward; -inf where empty
    signal: jax.Array  # [num_groups] bool, two rewards differ
    centred: jax.Array  # [B] reward minus its group's mean; 0 where there is no signal


def read_groups(
    group_ids: ArrayLike,
    num_groups: int,
    valid: ArrayLike | None = None,
    **arrays: jax.Array,
) -> Groups:
    """Checks ids, `valid` and whatever else has one number per sequence."""
    ids = _checks.integers("group_ids", group_ids)
    member = _checks.as_bool(valid, ids)
    given = {} if valid is None else {"valid": member}
    _checks.same_shape(1, **arrays, group_ids=ids, **given)
    number = _checks.static_size("num_groups", num_groups)
    member &= (ids >= 0) & (ids < number)
    return Groups(whole(jnp.clip(ids, 0, number - 1)), whole(member), number)


def statistics(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    num_groups: int,
    valid: ArrayLike | None,
) -> Statistics:
    """The group statistics that the advantage estimators share."""
    rewards = whole(_checks.constant("rewards", rewards))
    groups = read_groups(group_ids, num_groups, valid, rewards=rewards)
    ids, member, number = groups
    low = jax.ops.segment_min(jnp.where(member, rewards, jnp.inf), ids, number)
    high = jax.ops.segment_max(jnp.where(member, rewards, -jnp.inf), ids, number)
    sizes = groups.total(jnp.ones(ids.shape, rewards.dtype))
    signal = (sizes > 1) & (high != low)
    # The mean is taken about the minimum, so that equal rewards are their own mean. The
    # mean of what is left is rounding, of a long sum or at a common offset: it goes.
    smallest = jnp.where(sizes > 0, low, 0.0)
    total = groups.total(rewards - smallest[ids])
    mean = smallest + total / jnp.maximum(sizes, 1.0)
    apart = member & signal[ids]
    centred = jnp.where(apart, rewards - mean[ids], 0.0)
    mean = groups.total(centred) / jnp.maximum(sizes, 1.0)
    centred = jnp.where(apart, centred - mean[ids], 0.0)
    return Statistics(groups, sizes, low, high, signal, centred)


def moments(x: jax.Array, mask: jax.Array, ddof: int) -> tuple[jax.Array, jax.Array]:
    """`x` minus its mean over the unmasked entries, and their variance.

    Both are exactly 0 where all unmasked entries are equal, which plain float32 sums do
    not give. Masked entries get 0; if all are masked, so does the variance.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")
    count = jnp.sum(mask, dtype=jnp.int32)
    low = jnp.min(x, where=mask, initial=jnp.inf)
    high = jnp.max(x, where=mask, initial=-jnp.inf)
    # Subtract the minimum first: a common offset then costs no digits.
    x = zero_masked(x - jnp.where(count > 0, low, 0.0), mask)
    mean = accurate_sum(x) / jnp.maximum(count, 1)
    centred = jnp.where(mask & (high != low), x - mean, 0.0)
    return centred, accurate_sum(centred**2) / jnp.maximum(count - ddof, 1)
