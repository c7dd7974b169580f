"""Shared by the losses on pairs: checks, valid rows, the mean over the mini-batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics, metric_total, zero_masked


class Pairs(NamedTuple):
    """One number for each response of B pairs, and how to average over them."""

    chosen: jax.Array  # [B] differentiable, 0 where not valid
    rejected: jax.Array  # [B] likewise
    valid: jax.Array  # [B] bool, valid
    total: jax.Array  # [] float32, pairs of the whole mini-batch, at least 1


def read_pairs(
    chosen: ArrayLike,
    rejected: ArrayLike,
    valid: ArrayLike | None,
    num_pairs: ArrayLike | None,
    *,
    names: tuple[str, str] = ("policy_chosen", "policy_rejected"),
) -> Pairs:
    """Checks two arrays [B] and zeroes the rows that are not valid."""
    good = _checks.floating(names[0], chosen)
    bad = _checks.floating(names[1], rejected)
    _checks.same_shape(1, **{names[0]: good, names[1]: bad})
    total = denominator("num_pairs", num_pairs, "valid", valid, good.shape[0])
    valid = _checks.as_bool(valid, good)
    _checks.same_shape(1, **{names[0]: good, "valid": valid})
    return Pairs(zero_masked(good, valid), zero_masked(bad, valid), valid, total)


def minus_reference(
    pairs: Pairs, ref_chosen: ArrayLike, ref_rejected: ArrayLike
) -> Pairs:
    """log pi - log ref of each response; the reference is a constant."""
    good = _reference("ref_chosen", ref_chosen, pairs)
    bad = _reference("ref_rejected", ref_rejected, pairs)
    return pairs._replace(chosen=pairs.chosen - good, rejected=pairs.rejected - bad)


def per_token(
    pairs: Pairs, chosen_lengths: ArrayLike, rejected_lengths: ArrayLike
) -> Pairs:
    """Divided by the responses' lengths; a response without tokens has 0."""
    return pairs._replace(
        chosen=divide("chosen_lengths", pairs.chosen, chosen_lengths, pairs.valid),
        rejected=divide(
            "rejected_lengths", pairs.rejected, rejected_lengths, pairs.valid
        ),
    )


def divide(name: str, x: jax.Array, lengths: ArrayLike, valid: jax.Array) -> jax.Array:
    """[B] sums -> [B] token means."""
    lengths = _checks.constant(name, lengths)
    _checks.same_shape(1, policy_logprobs=x, **{name: lengths})
    return x / jnp.maximum(zero_masked(lengths, valid), 1.0)


def logistic(
    pairs: Pairs,
    beta: float | jax.Array,
    label_smoothing: float | jax.Array = 0.0,
) -> tuple[jax.Array, Metrics]:
    """DPO's loss of two implicit rewards, beta times those of `pairs`."""
    good, bad = beta * pairs.chosen, beta * pairs.rejected
    # log_sigmoid is finite at any argument; log(sigmoid(x)) is not.
    right = (1.0 - label_smoothing) * jax.nn.log_sigmoid(good - bad)
    wrong = label_smoothing * jax.nn.log_sigmoid(bad - good)
    return mean(-right - wrong, pairs, (good, bad))


def mean(
    losses: jax.Array, pairs: Pairs, rewards: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, Metrics]:
    """This part's contribution to the mean over all pairs, and its pairs' metrics."""
    good, bad = (jax.lax.stop_gradient(x) for x in rewards)
    values = {
        "chosen_reward": good,
        "rejected_reward": bad,
        "margin": good - bad,
        "accuracy": good > bad,
    }
    metrics = {name: metric_total(x, pairs.valid) for name, x in values.items()}
    return jnp.sum(zero_masked(losses, pairs.valid)) / pairs.total, metrics


def denominator(
    name: str,
    count: ArrayLike | None,
    mask_name: str,
    mask: ArrayLike | None,
    rows: int,
) -> jax.Array:
    """The rows of the whole mini-batch, at least 1.

    Without a count all rows given are the mini-batch. A mask says that they are not, so
    it must come with the count: a caller that pads micro-batches to a static size
    cannot forget it.
    """
    if count is None:
        if mask is not None:
            raise ValueError(
                f"{name} must be given with {mask_name}: the number in the whole "
                "mini-batch, not in these rows; got None"
            )
        return jnp.maximum(jnp.float32(rows), 1.0)
    _checks.number(name, count, at_least=0)  # type: ignore[arg-type]
    total = _checks.constant(name, count)
    _checks.same_shape(0, **{name: total})
    return jnp.maximum(total, 1.0)


def _reference(name: str, x: ArrayLike, pairs: Pairs) -> jax.Array:
    ref = jax.lax.stop_gradient(_checks.floating(name, x))
    _checks.same_shape(1, policy_chosen=pairs.chosen, **{name: ref})
    return zero_masked(ref, pairs.valid)
