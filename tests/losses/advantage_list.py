"""Every sequence-level advantage estimator: a new one joins its tests by one line.

A line says: name, the estimator as a function of (rewards, group_ids, num_groups,
valid), and the same in NumPy for one group's rewards or for the batch.
`test_every_advantage.py` puts each through permutations, relabelled groups, unequal
groups, groups of one, equal rewards, sequences left out, bfloat16, jit, vmap and
gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import (
    batch_std_advantages,
    dr_grpo_advantages,
    gdpo_advantages,
    gpg_advantages,
    grpo_advantages,
    maxrl_advantages,
    opo_advantages,
    pass_at_k_advantages,
    rloo_advantages,
)
from tests.losses import reference

Array = np.ndarray


class Estimator(NamedTuple):
    """One line of the list."""

    name: str
    estimate: Callable[[Any, Any, int, Any], jax.Array]
    reference: Callable[[Array, Array, Array], Array]  # rewards, ids (-1: none), valid
    centred: bool = True  # whether a group's advantages, weighed by length, sum to 0

    def __str__(self) -> str:
        return self.name


def lengths_of(rewards: Any) -> Any:
    """Lengths that travel with the rewards, and do not feel a common offset."""
    return 1.0 + jnp.floor(8.0 * jnp.mod(jnp.asarray(rewards, jnp.float32), 1.0))


def components_of(rewards: Any) -> Any:
    """Two rewards, of which the second cannot tell +1 from -1."""
    rewards = jnp.asarray(rewards)
    return jnp.stack([rewards, jnp.abs(rewards)], axis=1)


def opo(rewards: Any, ids: Any, num_groups: int, valid: Any) -> jax.Array:
    lengths = lengths_of(rewards)
    return opo_advantages(rewards, lengths, ids, num_groups=num_groups, valid=valid)


def gdpo(rewards: Any, ids: Any, num_groups: int, valid: Any) -> jax.Array:
    parts = components_of(rewards)
    return gdpo_advantages(
        parts, ids, num_groups=num_groups, weights=np.array([1.0, 0.5]), valid=valid
    )


def scores_of(rewards: Any) -> Any:
    """Scores >= 0, as MaxRL needs, that do not feel a common offset."""
    return jnp.mod(jnp.asarray(rewards, jnp.float32), 4.0)


def maxrl(rewards: Any, ids: Any, num_groups: int, valid: Any) -> jax.Array:
    return maxrl_advantages(scores_of(rewards), ids, num_groups=num_groups, valid=valid)


def plain(function: Callable[..., jax.Array], **settings: Any) -> Callable:
    def estimate(rewards: Any, ids: Any, num_groups: int, valid: Any) -> jax.Array:
        return function(rewards, ids, num_groups=num_groups, valid=valid, **settings)

    return estimate


def grouped(kind: str, **settings: Any) -> Callable[[Array, Array, Array], Array]:
    def estimate(rewards: Array, ids: Array, valid: Array) -> Array:
        return reference.group_advantages(kind, rewards, ids, valid, **settings)

    return estimate


def centred(rewards: Array, ids: Array, valid: Array) -> Array:
    return reference.group_advantages("dr_grpo", rewards, ids, valid)


def opo_reference(rewards: Array, ids: Array, valid: Array) -> Array:
    lengths, out = np.asarray(lengths_of(rewards)), np.zeros(len(rewards))
    for at in reference.groups(rewards, ids, valid).values():
        r, n = rewards[at], lengths[at]
        if len(r) > 1 and r.max() != r.min():
            out[at] = r - (n * r).sum() / n.sum()
    return out


def gpg_reference(rewards: Array, ids: Array, valid: Array) -> Array:
    groups = reference.groups(rewards, ids, valid).values()
    total = sum(len(at) for at in groups)
    silent = sum(len(at) for at in groups if len(set(rewards[at].tolist())) < 2)
    if total == silent:
        return np.zeros(len(rewards))
    return total / (total - silent) * centred(rewards, ids, valid)


def batch_std_reference(rewards: Array, ids: Array, valid: Array) -> Array:
    on = (ids >= 0) & (valid > 0)
    if on.sum() < 2:
        return np.zeros(len(rewards))
    return centred(rewards, ids, valid) / (np.std(rewards[on], ddof=1) + 1e-6)


def gdpo_reference(rewards: Array, ids: Array, valid: Array) -> Array:
    first, second = (
        reference.group_advantages("grpo", r, ids, valid, eps=1e-4)
        for r in (rewards, np.abs(rewards))
    )
    mixed, on = first + 0.5 * second, (ids >= 0) & (valid > 0)
    if on.sum() < 2:
        return np.zeros(len(rewards))
    # By the paper's formula, with the batch's mean taken away.
    scaled = (mixed - mixed[on].mean()) / (np.std(mixed[on], ddof=1) + 1e-4)
    return np.where(on, scaled, 0.0)


def maxrl_reference(rewards: Array, ids: Array, valid: Array) -> Array:
    scores, out = np.mod(rewards, 4.0), np.zeros(len(rewards))
    for at in reference.groups(rewards, ids, valid).values():
        mean = scores[at].mean() if len(at) else 0.0
        if mean > 0:
            out[at] = (scores[at] - mean) / mean
    return out


def pass_at_k_reference(
    rewards: Array, ids: Array, valid: Array, scale: bool = False
) -> Array:
    """The best of all less the best of the others, one response after the other."""
    out = np.zeros(len(rewards))
    for at in reference.groups(rewards, ids, valid).values():
        for i in at if len(at) > 1 else ():
            out[i] = rewards[at].max() - rewards[at[at != i]].max()
        if scale and len(at) > 1 and len(set(rewards[at].tolist())) > 1:
            out[at] /= np.std(rewards[at], ddof=1) + 1e-6
    return out


ADVANTAGES = [
    Estimator("grpo", plain(grpo_advantages), grouped("grpo")),
    Estimator("grpo_ddof0", plain(grpo_advantages, ddof=0), grouped("grpo", ddof=0)),
    Estimator("dr_grpo", plain(dr_grpo_advantages), grouped("dr_grpo")),
    Estimator("rloo", plain(rloo_advantages), grouped("rloo")),
    Estimator("opo", opo, opo_reference),
    Estimator("gpg", plain(gpg_advantages), gpg_reference),
    Estimator("batch_std", plain(batch_std_advantages), batch_std_reference),
    Estimator("gdpo", gdpo, gdpo_reference),
    Estimator("maxrl", maxrl, maxrl_reference),
    Estimator(
        "pass_at_k", plain(pass_at_k_advantages), pass_at_k_reference, centred=False
    ),
    Estimator(
        "pass_at_k, scaled",
        plain(pass_at_k_advantages, scale=True),
        partial(pass_at_k_reference, scale=True),
        centred=False,
    ),
]
