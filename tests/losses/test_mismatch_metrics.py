"""What is watched between sampler and trainer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    effective_sample_size,
    importance_weights,
    mismatch_metrics,
    mismatch_peaks,
)
from tests.losses.battery import random_batch
from tests.losses.worked import EXAMPLES, MASK, OLD, SAMPLER, close

measure = jax.jit(mismatch_metrics)


def means(metrics: dict) -> dict[str, float]:
    return {name: float(total / count) for name, (total, count) in metrics.items()}


def test_worked_numbers() -> None:
    found = means(measure(OLD, SAMPLER, MASK))
    close(found["sampler_k1"], EXAMPLES["roll.kl"])
    close(found["sampler_k3"], EXAMPLES["roll.k3"])
    u = importance_weights(OLD, SAMPLER, MASK, cap=np.inf)
    weights = np.clip(u, 0.5, 2.0)  # verl's bounds
    close(effective_sample_size(weights, MASK), EXAMPLES["tis.ess"])


def test_every_metric_is_that_of_plain_numpy() -> None:
    b = random_batch(3)
    d = (b.ref.astype(np.float64) - b.old)[b.mask]
    u = np.exp(-d)
    rows = [
        (b.ref[i].astype(np.float64) - b.old[i])[b.mask[i]].mean()
        for i in range(8)
        if b.mask[i].any()
    ]
    assert means(measure(b.old, b.ref, b.mask)) == pytest.approx(
        {
            "sampler_diff": np.abs(d).mean(),
            "sampler_k1": d.mean(),
            "sampler_k3": (u - 1 + d).mean(),
            "sampler_weight": u.mean(),
            "sampler_weight_square": (u**2).mean(),
            "sampler_chi2": (u**2 - 1).mean(),
            "sampler_perplexity_ratio": np.exp(rows).mean(),
        },
        rel=1e-5,
        abs=1e-6,
    )
    peaks = mismatch_peaks(b.old, b.ref, b.mask)
    close(peaks["sampler_diff_max"], np.abs(d).max())
    close(peaks["sampler_weight_max"], u.max())
    expected = u.sum() ** 2 / (u**2).sum() / len(u)
    close(effective_sample_size(np.exp(b.old - b.ref), b.mask), expected)


def test_pairs_add_up_and_give_the_effective_sample_size() -> None:
    b = random_batch(1)
    whole = measure(b.old, b.ref, b.mask)
    parts = [
        measure(b.old[i : i + 4], b.ref[i : i + 4], b.mask[i : i + 4]) for i in (0, 4)
    ]
    added = jax.tree.map(lambda x, y: x + y, *parts)
    jax.tree.map(close, added, whole)
    mean = means(added)
    close(
        mean["sampler_weight"] ** 2 / mean["sampler_weight_square"],
        effective_sample_size(np.exp(b.old - b.ref), b.mask),
    )


def test_garbage_empty_masks_and_extremes() -> None:
    b = random_batch(4)
    dirty = [np.where(b.mask, x, bad) for x, bad in ((b.old, np.nan), (b.ref, 1e6))]
    for f in (measure, mismatch_peaks):
        clean = f(b.old, b.ref, b.mask)
        jax.tree.map(np.testing.assert_array_equal, f(*dirty, b.mask), clean)
        assert not any(jax.tree.leaves(f(*dirty, np.zeros_like(b.mask))))
        far = f(b.old, b.old - np.float32(1e4), b.mask)
        assert np.isfinite(jax.tree.leaves(far)).all()
    assert effective_sample_size(dirty[0] * 0, np.zeros_like(b.mask)) == 0
    heavy = np.where(b.mask, np.float32(1e30), np.nan)
    close(effective_sample_size(heavy, b.mask), 1.0)


def test_agreement_has_its_ends() -> None:
    found = means(measure(OLD, OLD, MASK))
    expected = {"sampler_weight", "sampler_weight_square", "sampler_perplexity_ratio"}
    assert {name for name, x in found.items() if x == 1} == expected
    assert {x for name, x in found.items() if name not in expected} == {0.0}
    assert effective_sample_size(np.ones((2, 3)), np.ones((2, 3))) == 1
    one = np.zeros((2, 4))
    one[0, 0] = 7
    close(effective_sample_size(one, np.ones((2, 4))), 1 / 8)


def test_a_nan_inside_the_mask_shows() -> None:
    bad = SAMPLER.copy()
    bad[0, 0] = np.nan
    assert all(np.isnan(x) for x in mismatch_peaks(OLD, bad, MASK).values())
    assert all(np.isnan(x) for x in means(measure(OLD, bad, MASK)).values())


def test_nothing_has_a_gradient() -> None:
    def total(old: jax.Array, sampler: jax.Array) -> jax.Array:
        parts = mismatch_metrics(old, sampler, MASK), mismatch_peaks(old, sampler, MASK)
        return sum(jax.tree.leaves(parts)) + effective_sample_size(old**2, MASK)

    slopes = jax.grad(total, (0, 1))(jnp.asarray(OLD), jnp.asarray(SAMPLER))
    assert not np.any(slopes[0])
    assert not np.any(slopes[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: mismatch_metrics(OLD, SAMPLER[:2], MASK),
        lambda: mismatch_peaks(OLD, SAMPLER, MASK[:, :2]),
        lambda: effective_sample_size(OLD[0], MASK),
    ],
)
def test_refusals(call: Callable) -> None:
    with pytest.raises(ValueError, match="one shape"):
        call()
