from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.sampler.next_tokens import BLOCK, draw, filter_logits, inverse_cdf
from jaxrl_reason.sampler.settings import SamplingSettings


def settings(**change: Any) -> SamplingSettings:
    return SamplingSettings(max_new_tokens=1, eos_token_ids=(), **change)


def kept_by_numpy(
    logits: np.ndarray, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> np.ndarray:
    """One row, token by token from the likeliest down; no ties."""
    order = np.argsort(-logits)
    if top_k:
        order = order[:top_k]
    weights = np.exp(logits[order] - logits.max())
    probabilities = weights / weights.sum()
    if top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        order = order[before < top_p]
    if min_p:
        order = order[np.exp(logits[order] - logits.max()) >= min_p]
    kept = np.zeros(logits.shape, bool)
    kept[order] = True
    return kept


@pytest.mark.parametrize(
    "change",
    [
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 1000},
        {"top_p": 0.05},
        {"top_p": 0.8},
        {"top_p": 0.999},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"top_k": 20, "top_p": 0.7, "min_p": 0.2},
    ],
)
def test_filters_keep_what_numpy_keeps(change: dict[str, Any]) -> None:
    logits = 3 * jax.random.normal(jax.random.key(0), (8, 50))
    got = filter_logits(logits, settings(**change))
    for row, given in zip(np.asarray(got), np.asarray(logits, np.float64), strict=True):
        kept = kept_by_numpy(given, **change)
        np.testing.assert_array_equal(np.isfinite(row), kept)
        np.testing.assert_allclose(row[kept], given[kept], rtol=1e-6)


def test_tokens_tied_with_the_last_one_kept_are_kept() -> None:
    logits = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]]))
    for change in ({"top_k": 2}, {"top_p": 0.5}):
        kept = np.isfinite(filter_logits(logits, settings(**change)))
        np.testing.assert_array_equal(kept, [[True] * 4])


def test_filters_that_are_off_leave_the_program_alone() -> None:
    logits = jnp.zeros((2, 5))
    assert not jax.make_jaxpr(lambda x: filter_logits(x, settings()))(logits).eqns


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.999999, 1 - 2**-24])
def test_inverse_cdf_never_gives_a_token_without_weight(uniform: float) -> None:
    weights = jnp.array([[0.0, 0.0, 0.3, 0.0, 1e-9, 0.7, 0.0, 0.0]])
    index = inverse_cdf(weights, jnp.array([uniform]))
    assert int(index[0]) in (2, 5)


def test_inverse_cdf_is_the_definition() -> None:
    weights = jnp.array([[1.0, 2.0, 0.0, 5.0]] * 5)
    uniforms = jnp.array([0.0, 0.124, 0.125, 0.374, 0.375])
    np.testing.assert_array_equal(inverse_cdf(weights, uniforms), [0, 0, 1, 1, 3])


@pytest.mark.parametrize("size", [7, 2 * BLOCK, 2 * BLOCK + 1, 1500])
def test_frequencies_are_the_distribution(size: int) -> None:
    count = 40_000
    logits = 2 * jax.random.normal(jax.random.key(size), (1, size))
    logits = logits.at[0, ::5].set(-jnp.inf)
    uniforms = jax.random.uniform(jax.random.key(1), (count, 2))
    # One row a draw would be size times as large; the rows are drawn one by one.
    tokens = jax.jit(
        lambda u: jax.lax.map(lambda x: draw(logits, x[None])[0], u, batch_size=1000)
    )(uniforms)
    found = np.bincount(tokens, minlength=size)
    weights = np.exp(np.asarray(logits[0], np.float64))
    wanted = weights / weights.sum() * count
    assert (found[wanted == 0] == 0).all()
    common = wanted >= 10
    rest = [found[~common].sum(), wanted[~common].sum()]
    observed = np.append(found[common], rest[0])
    expected = np.append(wanted[common], rest[1])
    keep = expected > 0
    expected = expected[keep] / expected[keep].sum() * count
    chi_square = ((observed[keep] - expected) ** 2 / expected).sum()
    freedom = keep.sum() - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom) + 4


def test_the_last_token_of_a_ragged_block_can_be_drawn() -> None:
    size = 2 * BLOCK + 3
    logits = jnp.full((1, size), -jnp.inf).at[0, -1].set(0.0)
    tokens = draw(logits, jnp.array([[1 - 2**-24, 1 - 2**-24]]))
    assert int(tokens[0]) == size - 1
