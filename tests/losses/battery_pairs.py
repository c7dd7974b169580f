"""Every loss on pairs in one list: a new one joins the battery by one line.

A line says: name, the loss as a scalar of the batch and the count of its whole
mini-batch, the same in NumPy, and the fields that have a gradient.
`test_every_pair_loss.py` puts each through the same tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl_reason.losses import (
    Counts,
    batch_counts,
    count_pairs,
    count_steps,
    dpo_loss,
    hinge_loss,
    implicit_prm_loss,
    ipo_loss,
    irpo_loss,
    length_normalised_dpo_loss,
    nca_loss,
    orpo_loss,
    pairwise_ranking_loss,
    robust_dpo_loss,
    simpo_loss,
    verifier_loss,
)
from tests.losses import reference_pairs as ref

Array = np.ndarray


class PairBatch(NamedTuple):
    """A mini-batch of pairs, steps and responses, or a part of one."""

    chosen: Array  # [B] log-probs or scores
    rejected: Array  # [B]
    ref_chosen: Array  # [B]
    ref_rejected: Array  # [B]
    chosen_scores: Array  # [B, 2] of a step's candidates
    rejected_scores: Array  # [B, 3]
    logprobs: Array  # [B, T]
    ref_logprobs: Array  # [B, T]
    chosen_lengths: Array  # [B] int
    rejected_lengths: Array  # [B] int
    labels: Array  # [B] int
    valid: Array  # [B] bool
    chosen_mask: Array  # [B, 2] bool, no row has a True where it is not valid
    rejected_mask: Array  # [B, 3]
    mask: Array  # [B, T]


FLOATS = PairBatch._fields[:8]
POLICY = ("chosen", "rejected")
REFERENCE = ("ref_chosen", "ref_rejected")
LENGTHS = ("chosen_lengths", "rejected_lengths")


class PairCounts(NamedTuple):
    """Of the whole mini-batch."""

    pairs: Any
    steps: Any
    sequences: Counts


Loss = Callable[[PairBatch, PairCounts], tuple[jax.Array, Any]]


@dataclass(frozen=True)
class PairCase:
    """One line of the list."""

    name: str
    loss: Loss
    reference: Callable[[PairBatch], float]
    fields: tuple[str, ...] = POLICY  # that have a gradient

    def __str__(self) -> str:
        return self.name


def on_fields(function: Callable, *names: str, **settings: float) -> Loss:
    """A loss that takes these fields of the batch in this order."""

    def loss(b: PairBatch, counts: PairCounts) -> tuple[jax.Array, Any]:
        arrays = [getattr(b, name) for name in names]
        return function(*arrays, valid=b.valid, num_pairs=counts.pairs, **settings)

    return loss


def each(per_pair: Callable[[PairBatch, int], float]) -> Callable[[PairBatch], float]:
    """The mean over valid pairs of a function of one pair."""
    return lambda b: ref.mean_of_valid(partial(per_pair, b), b.valid)


def good(b: PairBatch, i: int) -> float:
    return b.chosen[i] - b.ref_chosen[i]


def bad(b: PairBatch, i: int) -> float:
    return b.rejected[i] - b.ref_rejected[i]


def delta(b: PairBatch, i: int) -> float:
    return good(b, i) - bad(b, i)


def average(b: PairBatch, i: int) -> tuple[float, float]:
    return b.chosen[i] / b.chosen_lengths[i], b.rejected[i] / b.rejected_lengths[i]


def simpo(b: PairBatch, i: int) -> float:
    w, l = average(b, i)  # noqa: E741 (the formula's names)
    return -ref.log_sigmoid(2.5 * w - 2.5 * l - 1.375)


def orpo(b: PairBatch, i: int) -> float:
    w, l = average(b, i)  # noqa: E741
    return -w - 0.1 * ref.log_sigmoid(ref.log_odds(w, l))


def verifier(b: PairBatch, i: int) -> float:
    w, l = b.chosen[i], b.rejected[i]  # noqa: E741
    return -ref.log_sigmoid(w - l) + 0.01 * (w**2 + l**2) / 2


PAIR_LOSSES = [
    PairCase(
        "dpo_loss",
        on_fields(dpo_loss, *POLICY, *REFERENCE),
        each(lambda b, i: ref.logistic(delta(b, i), 0.1)),
    ),
    PairCase(
        "dpo_loss, smoothed labels",
        on_fields(dpo_loss, *POLICY, *REFERENCE, beta=0.5, label_smoothing=0.2),
        each(lambda b, i: ref.logistic(delta(b, i), 0.5, 0.2)),
    ),
    PairCase(
        "robust_dpo_loss",
        on_fields(robust_dpo_loss, *POLICY, *REFERENCE),
        each(lambda b, i: ref.robust(delta(b, i), 0.1, 0.1)),
    ),
    PairCase(
        "ipo_loss",
        on_fields(ipo_loss, *POLICY, *REFERENCE, beta=0.25),
        each(lambda b, i: (delta(b, i) - 2.0) ** 2),
    ),
    PairCase(
        "hinge_loss",
        on_fields(hinge_loss, *POLICY, *REFERENCE, beta=0.5),
        each(lambda b, i: max(0.0, 1 - 0.5 * delta(b, i))),
    ),
    PairCase(
        "nca_loss",
        on_fields(nca_loss, *POLICY, *REFERENCE, beta=0.3),
        each(lambda b, i: ref.nca(0.3 * good(b, i), 0.3 * bad(b, i))),
    ),
    PairCase(
        "length_normalised_dpo_loss",
        on_fields(length_normalised_dpo_loss, *POLICY, *REFERENCE, *LENGTHS),
        each(
            lambda b, i: ref.logistic(
                good(b, i) / b.chosen_lengths[i] - bad(b, i) / b.rejected_lengths[i],
                5.0,
            )
        ),
    ),
    PairCase(
        "irpo_loss",
        on_fields(irpo_loss, *POLICY, *REFERENCE, LENGTHS[0]),
        each(lambda b, i: ref.logistic(delta(b, i), 0.1) - average(b, i)[0]),
    ),
    PairCase("simpo_loss", on_fields(simpo_loss, *POLICY, *LENGTHS), each(simpo)),
    PairCase("orpo_loss", on_fields(orpo_loss, *POLICY, *LENGTHS), each(orpo)),
    PairCase("verifier_loss", on_fields(verifier_loss, *POLICY), each(verifier)),
    PairCase(
        "pairwise_ranking_loss",
        lambda b, c: pairwise_ranking_loss(
            b.chosen_scores,
            b.rejected_scores,
            chosen_mask=b.chosen_mask,
            rejected_mask=b.rejected_mask,
            num_steps=c.steps,
        ),
        lambda b: ref.ranking(
            b.chosen_scores, b.rejected_scores, b.chosen_mask, b.rejected_mask
        ),
        ("chosen_scores", "rejected_scores"),
    ),
    PairCase(
        "implicit_prm_loss",
        lambda b, c: implicit_prm_loss(
            b.logprobs, b.ref_logprobs, b.mask, b.labels, c.sequences, beta=0.2
        ),
        lambda b: ref.implicit_prm(b.logprobs, b.ref_logprobs, b.mask, b.labels, 0.2),
        ("logprobs",),
    ),
]


def counts_of(b: PairBatch) -> PairCounts:
    """Counted on the whole mini-batch."""
    return PairCounts(
        count_pairs(b.valid),
        count_steps(b.chosen_mask, b.rejected_mask),
        batch_counts(b.mask),
    )


@partial(jax.jit, static_argnums=0)
def value_and_grads(
    case: PairCase, b: PairBatch, counts: PairCounts
) -> tuple[tuple[jax.Array, Any], dict[str, jax.Array]]:
    """((loss, metrics), gradients in all floats), compiled once a case and shape."""

    def loss(floats: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        return case.loss(b._replace(**floats), counts)

    floats = {name: getattr(b, name) for name in FLOATS}
    return jax.value_and_grad(loss, has_aux=True)(floats)


def random_pairs(seed: int, pairs: int = 8, tokens: int = 5) -> PairBatch:
    """Log-probs about those of responses of 1 to 9 tokens; some rows not valid."""
    rng = np.random.default_rng(seed)
    valid = rng.random(pairs) < 0.75
    valid[0] = True
    lengths = rng.integers(1, 10, (2, pairs)).astype(np.int32)
    policy = -rng.exponential(1.0, (2, pairs)) * lengths - 0.1 * lengths
    reference = policy + rng.normal(size=(2, pairs))
    logprobs = -rng.exponential(1.0, (pairs, tokens))
    numbers = [
        *policy,
        *reference,
        rng.uniform(-1, 1, (pairs, 2)),
        rng.uniform(-1, 1, (pairs, 3)),
        logprobs,
        logprobs + 0.5 * rng.normal(size=(pairs, tokens)),
    ]
    rows = valid[:, None]
    return PairBatch(
        *(x.astype(np.float32) for x in numbers),
        *lengths,
        rng.integers(0, 2, pairs).astype(np.int32),
        valid,
        rows & (rng.random((pairs, 2)) < 0.8),
        rows & (rng.random((pairs, 3)) < 0.7),
        rows & (np.arange(tokens) < rng.integers(1, tokens + 1, (pairs, 1))),
    )


def take(b: PairBatch, rows: Array | slice) -> PairBatch:
    """Some rows of a batch."""
    return PairBatch(*(field[rows] for field in b))


def with_garbage(b: PairBatch, values: tuple[float, ...]) -> PairBatch:
    """The batch with garbage in every float that is not valid, and in its lengths."""
    masks = {
        "chosen_scores": b.chosen_mask,
        "rejected_scores": b.rejected_mask,
        "logprobs": b.mask,
        "ref_logprobs": b.mask,
    }
    changed = {}
    for i, name in enumerate(FLOATS):
        x = getattr(b, name).copy()
        dead = ~np.asarray(masks.get(name, b.valid), bool)
        x[dead] = np.resize(np.roll(values, i), int(dead.sum()))
        changed[name] = x
    for name in LENGTHS:
        changed[name] = np.where(b.valid, getattr(b, name), 0)
    return b._replace(**changed)
