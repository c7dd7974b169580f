"""What holds for every loss on pairs, steps and graded responses."""

import importlib
import pkgutil
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import preference, process, prover_verifier
from tests.losses import reference
from tests.losses.battery_pairs import (
    FLOATS,
    PAIR_LOSSES,
    PairBatch,
    PairCase,
    counts_of,
    random_pairs,
    take,
    value_and_grads,
    with_garbage,
)
from tests.losses.worked import close

every_loss = pytest.mark.parametrize("case", PAIR_LOSSES, ids=str)
GARBAGE = (np.nan, 1e6, -1e6, np.inf, -np.inf)
Grads = dict[str, np.ndarray]


def run(case: PairCase, b: PairBatch) -> tuple[np.ndarray, Grads, Any]:
    (value, metrics), grads = value_and_grads(case, b, counts_of(b))
    return np.asarray(value), {k: np.asarray(v) for k, v in grads.items()}, metrics


def same(found: Grads, expected: Grads, **tolerance: float) -> None:
    for name in FLOATS:
        close(found[name], expected[name], **tolerance)


@every_loss
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_value_and_gradient_are_the_references(case: PairCase, seed: int) -> None:
    b = random_pairs(seed)
    floats = {name: np.asarray(getattr(b, name), np.float64) for name in FLOATS}
    exact = b._replace(**floats)
    value, grads, _ = run(case, b)
    close(value, case.reference(exact))
    for name in case.fields:

        def loss(x: np.ndarray, name: str = name) -> float:
            return case.reference(exact._replace(**{name: x}))

        slope = reference.numerical_gradient(loss, floats[name])
        close(grads[name], slope, rtol=1e-5)


@every_loss
def test_shares_of_micro_batches_add_up(case: PairCase) -> None:
    b = random_pairs(1)
    counts = counts_of(b)
    parts = [
        value_and_grads(case, take(b, slice(i, i + 2)), counts) for i in (0, 2, 4, 6)
    ]
    value, grads, metrics = run(case, b)
    close(sum(float(v) for (v, _), _ in parts), value)
    for name in case.fields:
        close(np.concatenate([g[name] for _, g in parts]), grads[name])
    for name, pair in metrics.items():
        close(np.sum([m[name] for (_, m), _ in parts], axis=0), pair)


@every_loss
def test_order_of_rows_does_not_matter(case: PairCase) -> None:
    b = random_pairs(2)
    order = np.random.default_rng(0).permutation(8)
    value, grads, _ = run(case, b)
    mixed, mixed_grads, _ = run(case, take(b, order))
    close(mixed, value)
    same(mixed_grads, {name: g[order] for name, g in grads.items()})


@every_loss
def test_rows_that_are_not_valid_are_not_seen(case: PairCase) -> None:
    b = random_pairs(3)
    assert not b.valid.all()
    value, grads, metrics = run(case, b)
    dirty, dirty_grads, dirty_metrics = run(case, with_garbage(b, GARBAGE))
    np.testing.assert_array_equal(dirty, value)
    for name in FLOATS:
        np.testing.assert_array_equal(dirty_grads[name], grads[name])
        assert (grads[name][~b.valid] == 0).all()
    jax.tree.map(np.testing.assert_array_equal, dirty_metrics, metrics)
    only, _, _ = run(case, take(b, b.valid))
    close(only, value)


@every_loss
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_extremes_stay_finite(case: PairCase, size: float) -> None:
    b = random_pairs(4)
    sign = np.where(np.arange(8) % 2, 1.0, -1.0)
    for first, second in ((sign, -sign), (sign, np.roll(sign, 1)), (-sign, sign)):
        changed = {
            "chosen": size * first,
            "rejected": size * second,
            "chosen_scores": np.outer(size * first, [1, -1]),
            "rejected_scores": np.outer(size * second, [1, 0, -1]),
            "logprobs": np.outer(size * first, np.ones(5)),
        }
        far = b._replace(**{k: v.astype(np.float32) for k, v in changed.items()})
        value, grads, metrics = run(case, far)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in grads.values())
        assert np.isfinite(jax.tree.leaves(metrics)).all()


@every_loss
def test_bfloat16_is_computed_in_float32(case: PairCase) -> None:
    b = random_pairs(5)
    coarse = {name: jnp.asarray(getattr(b, name), jnp.bfloat16) for name in FLOATS}
    exact = {name: np.asarray(x, np.float32) for name, x in coarse.items()}
    (value, _), grads = value_and_grads(case, b._replace(**coarse), counts_of(b))
    expected, slopes, _ = run(case, b._replace(**exact))
    assert value.dtype == jnp.float32
    close(value, expected)
    for name in case.fields:
        assert grads[name].dtype == jnp.bfloat16
        close(grads[name], slopes[name].astype(jnp.bfloat16), rtol=1e-2)


@every_loss
def test_vmap_changes_nothing(case: PairCase) -> None:
    several = [random_pairs(6), random_pairs(7)]
    counts = [counts_of(b) for b in several]

    def stack(*xs: np.ndarray) -> np.ndarray:
        return np.stack(xs)

    (values, _), grads = jax.vmap(partial(value_and_grads, case))(
        jax.tree.map(stack, *several), jax.tree.map(stack, *counts)
    )
    apart = [run(case, b) for b in several]
    close(values, np.stack([v for v, _, _ in apart]))
    for name in case.fields:
        close(grads[name], np.stack([g[name] for _, g, _ in apart]))


@every_loss
def test_no_pair_at_all_gives_zero(case: PairCase) -> None:
    b = random_pairs(8)
    masks = ("valid", "chosen_mask", "rejected_mask", "mask")
    empty = b._replace(**{name: np.zeros_like(getattr(b, name)) for name in masks})
    value, grads, metrics = run(case, with_garbage(empty, GARBAGE))
    assert value == 0
    assert all((g == 0).all() for g in grads.values())
    assert all(float(x) == 0 for x in jax.tree.leaves(metrics))


@every_loss
def test_only_the_policy_has_a_gradient(case: PairCase) -> None:
    _, grads, _ = run(case, random_pairs(9))
    moving = {name for name, g in grads.items() if (g != 0).any()}
    assert moving == set(case.fields)


@every_loss
def test_masks_of_numbers_are_masks_of_flags(case: PairCase) -> None:
    b = random_pairs(10)
    masks = ("valid", "chosen_mask", "rejected_mask", "mask")
    numbers = b._replace(
        **{name: getattr(b, name).astype(np.float32) for name in masks}
    )
    value, grads, _ = run(case, b)
    found, found_grads, _ = run(case, numbers)
    close(found, value)
    same(found_grads, grads)


def test_no_pair_loss_is_left_out() -> None:
    modules = [prover_verifier]
    for folder in (preference, process):
        names = pkgutil.iter_modules(folder.__path__, f"{folder.__name__}.")
        modules += [importlib.import_module(info.name) for info in names]
    public = {
        name
        for module in modules
        for name, x in vars(module).items()
        if name.endswith("_loss") and getattr(x, "__module__", "") == module.__name__
    }
    assert {case.name.split(",")[0] for case in PAIR_LOSSES} == public


def test_the_battery_has_batches_worth_testing() -> None:
    b = random_pairs(1)
    assert 0 < b.valid.sum() < 8
    assert len(set(b.chosen_mask[b.valid].sum(1).tolist())) > 1
    d = (b.chosen - b.ref_chosen) - (b.rejected - b.ref_rejected)
    assert (d[b.valid] > 0).any()
    assert (d[b.valid] < 0).any()
    assert (0.5 * d[b.valid] < 1).any()  # the hinge acts
