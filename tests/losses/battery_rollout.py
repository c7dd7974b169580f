"""Lines of the battery for rollout corrections: weights of every policy loss.

The batch's reference log-probs stand in for what the sampler reported.
"""

from collections.abc import Callable

import jax
import numpy as np

import jaxrl_reason.losses as lib
from jaxrl_reason.losses import (
    importance_weights,
    masked_importance_weights,
    rejection_mask,
)
from tests.losses import reference as ref
from tests.losses import reference_rollout as roll
from tests.losses.battery import LENGTH, Batch, Case, Loss, clipped

Array = np.ndarray


def weighted(
    function: Callable, weights: Callable[[Batch], jax.Array], **settings: float
) -> Loss:
    """A published method with weights made of the batch."""

    def loss(x: jax.Array, b: Batch, counts: lib.Counts) -> jax.Array:
        w = weights(b)
        return function(x, b.old, b.advantages, b.mask, counts, weights=w, **settings)[
            0
        ]

    return loss


def kept_rows(b: Batch) -> Array:
    return roll.row_statistic("geometric", b.old, b.ref, b.mask) <= 1.2


CASES = [
    Case(
        "ppo_loss, token importance weights",
        weighted(
            lib.ppo_loss, lambda b: importance_weights(b.old, b.ref, b.mask, cap=1.5)
        ),
        lambda x, b: ref.token_mean(
            clipped(x, b) * roll.truncated(b.old, b.ref, b.mask, cap=1.5), b.mask
        ),
    ),
    Case(
        "grpo_loss, sequence importance weights",
        weighted(
            lib.grpo_loss,
            lambda b: importance_weights(b.old, b.ref, b.mask, kind="sequence"),
        ),
        lambda x, b: ref.sequence_mean(
            clipped(x, b) * roll.truncated(b.old, b.ref, b.mask, "sequence"), b.mask
        ),
    ),
    Case(
        "dapo_loss, masked importance weights",
        weighted(
            lib.dapo_loss,
            lambda b: masked_importance_weights(
                b.old, b.ref, b.mask, low=0.7, high=1.5
            ),
        ),
        lambda x, b: ref.token_mean(
            clipped(x, b, 0.2, 0.28)
            * roll.masked(b.old, b.ref, b.mask, 0.7, 1.5, "token"),
            b.mask,
        ),
    ),
    Case(
        "dr_grpo_loss, rejected rows weigh nothing",
        weighted(
            lib.dr_grpo_loss,
            lambda b: rejection_mask(b.old, b.ref, b.mask, low=0.0, high=1.2),
            length=LENGTH,
        ),
        lambda x, b: ref.fixed_length_mean(
            clipped(x, b) * kept_rows(b)[:, None], b.mask, LENGTH
        ),
    ),
]
