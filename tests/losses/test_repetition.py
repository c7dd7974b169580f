"""Repeated n-grams: exact, in any padding, and without a T x T array."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    repetition_penalty,
    token_repetition_penalty,
)
from tests.losses import reference_rollout as ref
from tests.losses.jaxprs import largest_array
from tests.losses.worked import EXAMPLES, close


@partial(jax.jit, static_argnames="n")
def both(
    tokens: jax.Array, mask: jax.Array, *, n: int, penalty: float
) -> tuple[jax.Array, jax.Array]:
    settings = {"n": n, "penalty": penalty}
    return (
        repetition_penalty(tokens, mask, **settings),
        token_repetition_penalty(tokens, mask, **settings),
    )


def test_worked_penalties() -> None:
    tokens = np.array([[1, 2, 3, 4, 7], [5] * 5, [1, 2, 1, 2, 1]])
    mask = np.array([[1, 1, 1, 1, 0], [1] * 5, [1] * 5])
    close(both(tokens, mask, n=2, penalty=-1.0)[0], EXAMPLES["rep"])
    tokens = np.array([[1, 2, 3, 1, 2, 3, 9]])
    found = token_repetition_penalty(tokens, np.ones((1, 7)), n=3, penalty=-0.05)
    close(found[0], EXAMPLES["drep"])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 12])
def test_it_is_the_loop_over_windows(n: int) -> None:
    rng = np.random.default_rng(n)
    for vocabulary in (2, 3, 50):
        tokens = rng.integers(0, vocabulary, (6, 12))
        mask = np.arange(12) < rng.integers(0, 13, (6, 1))
        mask[0, 4] = False  # a hole
        tokens = np.where(mask, tokens, -(2**31))
        fraction, part = ref.repeats(tokens, mask, n)
        row, token = both(tokens, mask, n=n, penalty=-0.5)
        close(row, -0.5 * fraction)
        close(token, -0.5 * part)


def test_padding_on_any_side_and_what_it_holds_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 2, (4, 12))
    mask = np.zeros((4, 12), bool)
    mask[:, 3:9] = True
    row, token = both(tokens, mask, n=2, penalty=-1.0)
    other = np.where(mask, tokens, 1 - tokens)
    other_row, other_token = both(other, mask, n=2, penalty=-1.0)
    np.testing.assert_array_equal(row, other_row)
    np.testing.assert_array_equal(token, other_token)
    assert (np.asarray(token)[~mask] == 0).all()
    close(row, -ref.repeats(tokens[:, 3:9], mask[:, 3:9], 2)[0])


def test_a_hash_would_see_repeats_that_are_none() -> None:
    # 1 31 and 2 0 have the same polynomial hash to base 31.
    tokens, mask = np.array([[1, 31, 9, 2, 0]]), np.ones((1, 5))

    def check(fraction: float) -> None:
        assert fraction == 0

    check(float(both(tokens, mask, n=2, penalty=-1.0)[0][0]))
    hashes = tokens[0, :-1] * 31 + tokens[0, 1:]
    with pytest.raises(AssertionError):
        check(1 - len(set(hashes.tolist())) / len(hashes))


def test_short_responses_and_empty_rows_pay_nothing() -> None:
    tokens = np.array([[5, 5, 5], [5, 5, 5]])
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    for n in (3, 4, 40):
        row, token = both(tokens, mask, n=n, penalty=-1.0)
        assert not row.any()
        assert not token.any()
        assert token.shape == (2, 3)
    assert not np.signbit(both(tokens, mask, n=2, penalty=-1.0)[0]).any()


def test_memory_is_that_of_the_tokens() -> None:
    tokens, mask = jnp.zeros((2, 512), jnp.int32), jnp.ones((2, 512), bool)
    penalties = partial(both, n=40, penalty=-1.0)
    assert largest_array(penalties, tokens, mask) <= 2 * (512 + 40)


def test_vmap_types_and_a_traced_penalty() -> None:
    tokens = np.random.default_rng(1).integers(0, 2, (2, 3, 8)).astype(np.int8)
    mask = np.ones((2, 3, 8), bool)
    found = jax.vmap(partial(both, n=2, penalty=-1.0))(tokens, mask)
    for i in range(2):
        apart = both(tokens[i], mask[i], n=2, penalty=-1.0)
        jax.tree.map(np.testing.assert_array_equal, [x[i] for x in found], [*apart])
    assert found[0].dtype == found[1].dtype == jnp.float32


ONES = np.ones((1, 4), int)


@pytest.mark.parametrize("penalty", [repetition_penalty, token_repetition_penalty])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be a static integer >= 1, got 0"),
        ({"penalty": 0.1}, "penalty must be finite and <= 0, got 0.1"),
        ({"mask": ONES[:, :2]}, "one shape"),
        ({"tokens": ONES * 0.5}, "tokens must be an integer array"),
    ],
)
def test_refusals(penalty: Callable, change: dict, message: str) -> None:
    given = {"tokens": ONES, "mask": ONES, "n": 2, "penalty": -1.0, **change}
    with pytest.raises(ValueError, match=message):
        penalty(**given)
