"""Every loss in one list: a new loss joins the whole battery of tests by one line.

A line says: name, the loss as a scalar of its differentiable array and the batch, and
the same in NumPy. `test_battery.py` puts each through micro-batches, padding, masked
rows, permutations, garbage, extremes, bfloat16, jit, vmap, empty masks, constants and
numerical differentiation; `test_sharded_losses.py` through eight devices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

import jaxrl_reason.losses as lib
from tests.losses import reference as ref

Array = np.ndarray
NUM_GROUPS = 4
LENGTH = 10.0  # Dr. GRPO's constant


class Batch(NamedTuple):
    """A mini-batch, or a part of one."""

    x: Array  # [B, T] what is differentiated: log-probs, or values
    old: Array  # [B, T]
    ref: Array  # [B, T] reference log-probs, or value targets
    advantages: Array  # [B, T]
    sequence_advantages: Array  # [B]
    entropy: Array  # [B, T]
    weights: Array  # [B, T]
    sequence_weights: Array  # [B]
    mask: Array  # [B, T]
    group_ids: Array  # [B]


FLOATS = Batch._fields[:8]
Loss = Callable[[jax.Array, Batch, lib.Counts], jax.Array]
Reference = Callable[[Array, Batch], float]


@dataclass(frozen=True)
class Case:
    """One line of the list."""

    name: str
    loss: Loss
    reference: Reference
    # Fields of the batch besides x that have a gradient.
    differentiable: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.name


def policy_loss(function: Callable, **settings: object) -> Loss:
    """A published method; settings that name a field of the batch are looked up."""

    def loss(x: jax.Array, b: Batch, counts: lib.Counts) -> jax.Array:
        given = {
            k: getattr(b, v) if isinstance(v, str) and v in Batch._fields else v
            for k, v in settings.items()
        }
        advantages = given.pop("advantages", b.advantages)
        return function(x, b.old, advantages, b.mask, counts, **given)[0]

    return loss


def clipped(
    x: Array, b: Batch, low: float = 0.2, high: float = 0.2, dual: float | None = None
) -> Array:
    return ref.clipped_surrogate(x, b.old, b.advantages, b.mask, low, high, dual)


def full_options(x: Array, b: Batch) -> float:
    """The reference of a policy loss with every optional term."""
    objective = clipped(x, b, 0.2, 0.28, 3.0) * ref.where(b.mask, b.weights)
    kl = ref.kl("k3", x, b.ref, b.mask)
    return ref.token_mean(objective + 0.1 * kl - 0.01 * b.entropy, b.mask)


def sequence_terms(x: Array, b: Batch) -> float:
    """GRPO with its KL, advantages and weights one per sequence."""
    a = b.sequence_advantages * b.sequence_weights
    objective = ref.clipped_surrogate(x, b.old, a, b.mask)
    kl = ref.kl("k3", x, b.ref, b.mask)
    return ref.sequence_mean(objective + 0.04 * kl, b.mask)


LOSSES = [
    Case(
        "ppo_loss",
        policy_loss(lib.ppo_loss),
        lambda x, b: ref.token_mean(clipped(x, b), b.mask),
    ),
    Case(
        "ppo_loss, all terms",
        policy_loss(
            lib.ppo_loss,
            clip_high=0.28,
            dual_clip=3.0,
            ref_logprobs="ref",
            kl_coef=0.1,
            entropy="entropy",
            entropy_coef=0.01,
            weights="weights",
        ),
        full_options,
        ("entropy",),
    ),
    Case(
        "grpo_loss",
        policy_loss(lib.grpo_loss),
        lambda x, b: ref.sequence_mean(clipped(x, b), b.mask),
    ),
    Case(
        "grpo_loss, one advantage per sequence",
        policy_loss(
            lib.grpo_loss,
            advantages="sequence_advantages",
            weights="sequence_weights",
            ref_logprobs="ref",
        ),
        sequence_terms,
    ),
    Case(
        "dr_grpo_loss",
        policy_loss(lib.dr_grpo_loss, length=LENGTH),
        lambda x, b: ref.fixed_length_mean(clipped(x, b), b.mask, LENGTH),
    ),
    Case(
        "dapo_loss",
        policy_loss(lib.dapo_loss),
        lambda x, b: ref.token_mean(clipped(x, b, 0.2, 0.28), b.mask),
    ),
    Case(
        "policy_gradient, sequence_sum_mean",
        lambda x, b, c: lib.sequence_sum_mean(
            lib.policy_gradient(x, b.sequence_advantages, b.mask), b.mask, c
        ),
        lambda x, b: ref.sequence_sum_mean(
            ref.policy_gradient(x, b.sequence_advantages, b.mask), b.mask
        ),
    ),
    Case(
        "clipped_surrogate, prompt_mean",
        lambda x, b, c: lib.prompt_mean(
            lib.clipped_surrogate(x, b.old, b.advantages, b.mask),
            b.mask,
            b.group_ids,
            c,
            num_groups=NUM_GROUPS,
        ),
        lambda x, b: ref.prompt_mean(clipped(x, b), b.mask, b.group_ids),
    ),
    Case(
        "value_loss",
        lambda x, b, c: lib.token_mean(
            lib.value_loss(x, None, b.ref, b.mask), b.mask, c
        ),
        lambda x, b: ref.token_mean(ref.value_loss(x, b.old, b.ref, b.mask), b.mask),
    ),
    Case(
        "value_loss, clipped",
        lambda x, b, c: lib.token_mean(
            lib.value_loss(x, b.old, b.ref, b.mask, clip=0.3), b.mask, c
        ),
        lambda x, b: ref.token_mean(
            ref.value_loss(x, b.old, b.ref, b.mask, 0.3), b.mask
        ),
    ),
    Case(
        "nll",
        lambda x, b, c: lib.token_mean(lib.nll(x, b.mask), b.mask, c),
        lambda x, b: -ref.token_mean(x, b.mask),
    ),
]


def _kl_case(name: str) -> Case:
    return Case(
        f"kl_penalty, {name}",
        lambda x, b, c: lib.sequence_mean(
            lib.kl_penalty(x, b.ref, b.mask, estimator=name), b.mask, c
        ),
        lambda x, b: ref.sequence_mean(ref.kl(name, x, b.ref, b.mask), b.mask),
    )


LOSSES += [_kl_case(name) for name in ("k1", "k2", "k3")]


def counts_of(b: Batch) -> lib.Counts:
    """Counted on the whole mini-batch."""
    return lib.batch_counts(b.mask, b.group_ids, num_groups=NUM_GROUPS)


@partial(jax.jit, static_argnums=0)
def value_and_grad(
    case: Case, b: Batch, counts: lib.Counts
) -> tuple[jax.Array, jax.Array]:
    """The loss and its gradient in x, compiled once a case and shape."""
    return jax.value_and_grad(case.loss)(b.x, b, counts)


def random_batch(seed: int, sequences: int = 8, tokens: int = 6) -> Batch:
    """Lengths from 0 to T, holes inside, groups of unequal sizes in mixed order."""
    rng = np.random.default_rng(seed)
    shape = (sequences, tokens)
    lengths = rng.integers(1, tokens + 1, sequences)
    lengths[rng.integers(sequences)] = 0
    mask = (np.arange(tokens) < lengths[:, None]) & (rng.random(shape) > 0.15)
    x = -rng.exponential(1.0, shape)
    return Batch(
        x=x.astype(np.float32),
        old=(x + 0.4 * rng.normal(size=shape)).astype(np.float32),
        ref=(x + 0.5 * rng.normal(size=shape)).astype(np.float32),
        advantages=rng.normal(size=shape).astype(np.float32),
        sequence_advantages=rng.normal(size=sequences).astype(np.float32),
        entropy=rng.random(shape).astype(np.float32),
        weights=rng.uniform(0.2, 2, shape).astype(np.float32),
        sequence_weights=rng.uniform(0.2, 2, sequences).astype(np.float32),
        mask=mask,
        group_ids=rng.integers(0, NUM_GROUPS, sequences).astype(np.int32),
    )


def take(b: Batch, rows: Array | slice) -> Batch:
    """Some rows of a batch."""
    return Batch(*(field[rows] for field in b))


def with_garbage(b: Batch, values: tuple[float, ...]) -> Batch:
    """The batch with garbage in every array of floats where the mask is 0."""
    dead = ~np.asarray(b.mask, bool)
    changed = {}
    for i, name in enumerate(FLOATS):
        x = getattr(b, name).copy()
        # A row that is masked as a whole may hold garbage per sequence as well.
        where = dead if x.ndim == 2 else dead.all(1)
        x[where] = np.resize(np.roll(values, i), int(where.sum()))
        changed[name] = x
    return b._replace(**changed)
