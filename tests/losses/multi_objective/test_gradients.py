"""PCGrad and MGDA on lists of gradient pytrees."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    combine_gradients,
    mgda_weights,
    pcgrad,
    pcgrad_coefficients,
)
from tests.losses.worked import EXAMPLES, close

KEY = jax.random.key(0)
TWO = [np.float32([1, 0]), np.float32([-1, 1])]
surgery = jax.jit(lambda g, key: pcgrad_coefficients(g, key=key))
shortest = jax.jit(mgda_weights)


def trees(rows: np.ndarray) -> list[dict[str, Any]]:
    """Each row as a pytree of a vector, a matrix and a scalar."""
    return [
        {"a": r[:2], "b": [r[2:6].reshape(2, 2), r[6]]} for r in rows.astype(np.float32)
    ]


def flat(tree: Any) -> np.ndarray:
    leaves = [np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


def rows(seed: int, count: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(count, 7)).astype(
        np.float32
    )


def test_worked_numbers_of_pcgrad() -> None:
    c = pcgrad_coefficients(TWO)
    close([combine_gradients(TWO, c[i]) for i in range(2)], EXAMPLES["pc.g"])
    close(pcgrad(TWO), EXAMPLES["pc.sum"])


def test_worked_numbers_of_mgda() -> None:
    weights = mgda_weights(TWO)
    close(weights, [EXAMPLES["mgda.gamma"], 1 - EXAMPLES["mgda.gamma"]])
    d = combine_gradients(TWO, weights)
    close(d, EXAMPLES["mgda.d"])
    close([d @ g for g in TWO], EXAMPLES["mgda.dots"])
    nested = [np.float32([1, 0]), np.float32([2, 0])]
    weights = mgda_weights(nested)
    found = [weights[0], *combine_gradients(nested, weights)]
    close(found, EXAMPLES["mgda.dom"])
    orthogonal = list(np.diag(np.float32([1, 2, 2])))
    close(mgda_weights(orthogonal), EXAMPLES["mgda3.w"])
    close(mgda_weights(orthogonal), EXAMPLES["mgda3.closed"])


def reference_pcgrad(g: np.ndarray, orders: list[np.ndarray]) -> np.ndarray:
    """Algorithm 1 of the paper, on the gradients themselves."""
    out = []
    for i, order in enumerate(orders):
        h = g[i].copy()
        for j in order:
            if j != i and h @ g[j] < 0:
                h -= (h @ g[j]) / (g[j] @ g[j] + 1e-8) * g[j]
        out.append(h)
    return np.array(out)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_pcgrad_is_the_reference(seed: int) -> None:
    g = rows(seed, 4)
    key = jax.random.key(seed)
    orders = [
        np.asarray(jax.random.permutation(jax.random.fold_in(key, i), np.arange(4)))
        for i in range(4)
    ]
    exact = reference_pcgrad(g.astype(np.float64), orders)
    found = np.asarray(surgery(trees(g), key), np.float64) @ g
    close(found, exact, rtol=1e-5, atol=1e-5)
    close(flat(pcgrad(trees(g), key=key)), exact.sum(0), rtol=1e-5, atol=1e-5)


def test_without_conflicts_it_is_the_sum() -> None:
    g = np.abs(rows(0, 3))
    close(flat(pcgrad(trees(g), key=KEY)), g.sum(0))
    np.testing.assert_array_equal(surgery(trees(g), KEY), np.eye(3))


def test_two_that_conflict_become_orthogonal_to_the_other() -> None:
    g = rows(1, 2)
    g[1] -= 2 * (g[0] @ g[1] > 0) * g[1]  # make them conflict
    c = np.asarray(pcgrad_coefficients(trees(g)), np.float64)
    assert g[0] @ g[1] < 0

    def check(projected: np.ndarray) -> None:
        close([projected[0] @ g[1], projected[1] @ g[0]], [0, 0], atol=2e-6)

    check(c @ g)
    # Projected on what the first has become, not on what it was.
    first = g[0] - (g[0] @ g[1]) / (g[1] @ g[1]) * g[1]
    second = g[1] - min(0, g[1] @ first) / (first @ first) * first
    with pytest.raises(AssertionError):
        check(np.stack([first, second]))


def test_the_order_is_the_keys() -> None:
    g = [np.float32(x) for x in ([1, 0, 0], [-1, 1, 0], [-1, -2, 1])]
    same = surgery(g, jax.random.key(3))
    np.testing.assert_array_equal(same, surgery(g, jax.random.key(3)))
    found = {tuple(np.ravel(surgery(g, jax.random.key(i)))) for i in range(8)}
    assert len(found) > 1
    # Two gradients have one order only.
    close(pcgrad(TWO, key=KEY), pcgrad(TWO))


def test_tiny_and_zero_gradients() -> None:
    close(pcgrad([0 * TWO[0], TWO[1]]), TWO[1])
    close(pcgrad([0 * TWO[0], TWO[1]], eps=0.0), TWO[1])
    tiny = [1e-6 * g for g in TWO]
    whole = 1e-6 * np.array(EXAMPLES["pc.sum"])
    close(pcgrad(tiny, eps=0.0), whole, rtol=1e-5, atol=0)
    # The published eps is not scaled, as its docstring says.
    assert np.abs(np.asarray(pcgrad(tiny)) - whole).max() > 1e-7


def exact_mgda(g: np.ndarray) -> float:
    """The least squared norm over all faces of the simplex."""
    best = np.inf
    for size in range(1, len(g) + 1):
        for face in combinations(range(len(g)), size):
            a = g[list(face)] @ g[list(face)].T
            system = np.block([[a, np.ones((size, 1))], [np.ones((1, size)), 0.0]])
            w = np.linalg.lstsq(system, np.eye(size + 1)[-1], rcond=None)[0][:size]
            if (w >= -1e-12).all():
                best = min(best, float(w @ a @ w))
    return best


@pytest.mark.parametrize("kind", ["plain", "scales", "alike"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_mgda_is_the_shortest_vector(count: int, kind: str) -> None:
    for seed in range(5):
        g = rows(seed, count)
        if kind == "scales":
            g *= (10.0 ** np.linspace(-2, 2, count)[:, None]).astype(np.float32)
        if kind == "alike":
            g = 0.1 * g + rows(seed + 100, 1)
        weights = np.asarray(shortest(trees(g)), np.float64)
        assert (weights >= 0).all()
        close(weights.sum(), 1.0)
        d = weights @ g.astype(np.float64)
        close(d @ d, exact_mgda(g.astype(np.float64)), rtol=1e-4, atol=1e-6)
        # Invariant 13: every loss goes down along d.
        assert (g @ d >= d @ d * (1 - 1e-3) - 1e-5 * np.abs(g @ g.T).max()).all()


def test_mgda_at_its_corners() -> None:
    close(mgda_weights([TWO[0]]), [1.0])
    close(mgda_weights([TWO[0], TWO[0]]), [0.5, 0.5])
    close(mgda_weights([TWO[0]] * 3), np.full(3, 1 / 3))
    zero = 0 * TWO[0]
    close(mgda_weights([zero, zero, zero]), np.full(3, 1 / 3))
    close(mgda_weights([TWO[0], zero, TWO[1]])[1], 1.0)
    opposite = [TWO[0], -TWO[0]]
    close(combine_gradients(opposite, mgda_weights(opposite)), [0.0, 0.0])


@pytest.mark.parametrize("size", [1e-4, 100.0, 1e4])
@pytest.mark.parametrize("count", [2, 3])
def test_the_scale_does_not_matter_to_mgda(count: int, size: float) -> None:
    plain = mgda_weights(trees(rows(2, count)))
    close(mgda_weights(trees(rows(2, count, size))), plain, rtol=1e-4, atol=1e-5)
    assert np.isfinite(flat(pcgrad(trees(rows(2, count, size)), key=KEY))).all()


def test_a_nan_is_not_hidden() -> None:
    for count in (2, 3):
        g = rows(3, count)
        g[1, 2] = np.nan
        assert np.isnan(mgda_weights(trees(g))).all()
        assert np.isnan(flat(pcgrad(trees(g), key=KEY))).any()


def test_types_are_kept_and_sums_are_float32() -> None:
    g = [{"w": jnp.asarray(x, jnp.bfloat16), "b": jnp.float32(1)} for x in rows(4, 3)]
    found = pcgrad(g, key=KEY)
    assert found["w"].dtype == jnp.bfloat16
    assert found["b"].dtype == jnp.float32
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), g)
    close(mgda_weights(g), mgda_weights(wide))
    close(found["w"], pcgrad(wide, key=KEY)["w"], rtol=1e-2, atol=1e-2)
    # Ten thousand equal bfloat16 numbers: a sum in bfloat16 would stop at 256.
    many = [jnp.ones(10_000, jnp.bfloat16), -jnp.ones(10_000, jnp.bfloat16)]
    close(pcgrad_coefficients(many), np.ones((2, 2)))


def test_jit_vmap_and_no_gradient() -> None:
    several = [rows(5, 3), rows(6, 3)]
    stacked = [jnp.stack([g[k] for g in several]) for k in range(3)]
    for function in (mgda_weights, partial(pcgrad, key=KEY)):
        both = jax.jit(jax.vmap(function))(stacked)
        close(both[1], function(list(several[1])), rtol=1e-5, atol=1e-5)
        slope = jax.grad(lambda x, f=function: f([x, 2 * x, -x]).sum())(several[0][0])
        assert (slope == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pcgrad([]), "at least one gradient, got an empty list"),
        (lambda: mgda_weights([]), "at least one gradient, got an empty list"),
        (lambda: combine_gradients([], [1.0]), "at least one gradient"),
        (lambda: pcgrad(np.ones((2, 2))), "must be a list of pytrees, got ndarray"),
        (lambda: mgda_weights([{}, {}]), "must hold arrays"),
        (lambda: pcgrad([*TWO, TWO[0]]), "key must be given for three gradients"),
        (lambda: pcgrad([TWO[0], {"a": TWO[1]}]), "same structure and shapes"),
        (lambda: mgda_weights([TWO[0], np.ones(3)]), "same structure and shapes"),
        (lambda: mgda_weights([np.arange(2)] * 2), "must be a floating array"),
        (lambda: mgda_weights(TWO, iterations=0), "iterations must be"),
        (lambda: pcgrad(TWO, eps=-1.0), "eps must be"),
        (lambda: combine_gradients(TWO, [1.0]), r"weights must have shape \[2\]"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
