"""Groups of responses to one prompt; moments that are exact where nothing varies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import zero_masked


class Groups(NamedTuple):
    """B sequences in groups that are given by ids, of any sizes and in any order."""

    ids: jax.Array  # [B] int32 group of each sequence, made safe to index with
    member: jax.Array  # [B] bool, valid and in a group
    number: int  # of groups, static

    def total(self, x: jax.Array) -> jax.Array:
        """[B] -> [num_groups] sums over the members."""
        x = jnp.where(self.member, x, 0.0)
        return jax.ops.segment_sum(x, self.ids, self.number)

    def sizes(self) -> jax.Array:
        """[num_groups] float32."""
        return self.total(jnp.ones(self.ids.shape, jnp.float32))

    def extremes(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B] -> minimum and maximum [num_groups]; inf and -inf where empty."""
        low = jnp.where(self.member, x, jnp.inf)
        high = jnp.where(self.member, x, -jnp.inf)
        return (
            jax.ops.segment_min(low, self.ids, self.number),
            jax.ops.segment_max(high, self.ids, self.number),
        )


class Statistics(NamedTuple):
    """Rewards about their group's mean."""

    groups: Groups
    sizes: jax.Array  # [num_groups] float32
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
    member = _checks.as_bool_or_all(valid, ids)
    _checks.same_shape(1, **arrays, group_ids=ids, valid=member)
    number = _checks.static_size("num_groups", num_groups)
    member &= (ids >= 0) & (ids < number)
    return Groups(jnp.clip(ids, 0, number - 1), member, number)


def statistics(
    rewards: ArrayLike,
    group_ids: ArrayLike,
    num_groups: int,
    valid: ArrayLike | None,
) -> Statistics:
    """What the estimators of advantages share."""
    rewards = _checks.constant("rewards", rewards)
    groups = read_groups(group_ids, num_groups, valid, rewards=rewards)
    low, high = groups.extremes(rewards)
    sizes = groups.sizes()
    signal = (sizes > 1) & (high != low)
    # Less the group's minimum first: the mean of what is left is exactly 0 for equal
    # rewards and loses no digits to a common offset.
    rewards = rewards - jnp.where(sizes > 0, low, 0.0)[groups.ids]
    mean = groups.total(rewards) / jnp.maximum(sizes, 1.0)
    kept = groups.member & signal[groups.ids]
    centred = jnp.where(kept, rewards - mean[groups.ids], 0.0)
    return Statistics(groups, sizes, signal, centred)


def check_ddof(ddof: int) -> None:
    """0 for the population's variance, 1 for the sample's."""
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, got {ddof!r}")


def moments(x: jax.Array, mask: jax.Array, ddof: int) -> tuple[jax.Array, jax.Array]:
    """`x` minus its mean over the unmasked entries, and their variance.

    Both are exactly 0 where all unmasked entries are equal, which plain float32 sums do
    not give. Masked entries get 0, and so does everything where all are masked.
    """
    check_ddof(ddof)
    count = jnp.sum(mask, dtype=jnp.int32)
    low = jnp.min(x, where=mask, initial=jnp.inf)
    high = jnp.max(x, where=mask, initial=-jnp.inf)
    # Less the minimum first: a common offset costs no digits.
    x = zero_masked(x - jnp.where(count > 0, low, 0.0), mask)
    mean = jnp.sum(x) / jnp.maximum(count, 1)
    centred = jnp.where(mask & (high != low), x - mean, 0.0)
    return centred, jnp.sum(centred**2) / jnp.maximum(count - ddof, 1)


def safe_std(variance: jax.Array, eps: float | jax.Array) -> jax.Array:
    """sqrt(variance) + eps to divide by; 1 where nothing varies."""
    # Not variance > 0, which would turn a nan into a 1.
    return jnp.where(variance == 0, 1.0, jnp.sqrt(variance) + eps)
