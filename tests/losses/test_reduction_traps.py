"""Faults of reductions seen in public libraries, each beside what it breaks.

A test asserts the property of the library's function and then that the same assertion
fails on a mutant: the faulty form as it was seen elsewhere. The numbers of the sections
are those of the project's list of traps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.traps import REDUCTIONS, X, breaks, slope, zero
from tests.losses.worked import MASK, NEW, OLD, close

# 1. A denominator taken from the rows at hand.


@pytest.mark.parametrize("name", REDUCTIONS)
def test_1_micro_batches_give_the_whole(name: str) -> None:
    reduction = REDUCTIONS[name]

    def check(part: Callable) -> None:
        counts = lib.batch_counts(MASK)

        def loss(x: jax.Array) -> jax.Array:
            parts = [slice(0, 1), slice(1, 4)]
            return sum(part(x[p], MASK[p], counts, len(parts)) for p in parts)

        value, grad = slope(loss)(X)
        whole = slope(lambda x: reduction(x, MASK, counts))(X)
        close(value, whole[0])
        close(grad, whole[1])

    check(lambda x, m, counts, parts: reduction(x, m, counts))
    breaks(
        check, lambda x, m, counts, parts: reduction(x, m, lib.batch_counts(m)) / parts
    )


def test_1_micro_batches_give_the_whole_prompt_mean() -> None:
    ids = np.array([0, 1, 0, 1])

    def check(part: Callable) -> None:
        counts = lib.batch_counts(MASK, ids, num_groups=2)
        parts = [slice(0, 1), slice(1, 4)]
        value = sum(part(X[p], MASK[p], ids[p], counts) for p in parts)
        close(value, reference.prompt_mean(X, MASK, ids))

    check(partial(lib.prompt_mean, num_groups=2))

    def local(x: Any, m: Any, i: Any, counts: Any) -> jax.Array:
        here = lib.batch_counts(m, i, num_groups=2)
        return lib.prompt_mean(x, m, i, here, num_groups=2) / 2

    breaks(check, local)


# 3. Masked rows in a denominator.


@pytest.mark.parametrize("name", REDUCTIONS)
def test_3_a_masked_row_changes_nothing(name: str) -> None:
    reduction = REDUCTIONS[name]

    def check(mean: Callable) -> None:
        wide = np.concatenate([X, np.ones((2, 4), np.float32)])
        mask = np.concatenate([MASK, np.zeros((2, 4), int)])
        close(mean(wide, mask), mean(X, MASK))

    check(lambda x, m: reduction(x, m, lib.batch_counts(m)))

    def all_rows(x: Any, m: Any) -> jax.Array:
        counts = lib.batch_counts(m)
        rows = jnp.asarray(len(m))
        return reduction(x, m, lib.Counts(counts.tokens, rows))

    def phantom_token(x: Any, m: Any) -> jax.Array:
        counts = lib.batch_counts(m)
        tokens = jnp.maximum(jnp.asarray(m).sum(1), 1).sum()
        return reduction(x, m, lib.Counts(tokens, counts.sequences))

    breaks(check, phantom_token if name == "token_mean" else all_rows)


# 4. Dr. GRPO's constant taken from the width; only one of its two parts.


def test_4_the_constant_does_not_follow_the_width() -> None:
    def check(loss: Callable) -> None:
        pad = lambda x: np.pad(x, [(0, 0), (0, 4)])  # noqa: E731
        a, counts = np.ones(4), lib.batch_counts(MASK)
        narrow = loss(NEW, OLD, a, MASK, counts)[0]
        close(loss(pad(NEW), pad(OLD), a, pad(MASK), counts)[0], narrow)

    check(partial(lib.dr_grpo_loss, length=8))
    breaks(check, lambda x, *rest: lib.dr_grpo_loss(x, *rest, length=x.shape[1]))


def test_4_both_parts_are_done() -> None:
    def check_advantages(estimate: Callable) -> None:
        # Not divided by the standard deviation: twice the rewards, twice the
        # advantages.
        r, ids = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4, int)
        close(estimate(2 * r, ids, num_groups=1), 2 * estimate(r, ids, num_groups=1))

    def check_loss(loss: Callable) -> None:
        # Not divided by the sequence's own length: every token pulls alike.
        counts = lib.batch_counts(MASK)
        pull = slope(lambda x: loss(x, OLD, np.ones(4), MASK, counts))
        pulls = np.asarray(pull(OLD.astype(np.float32))[1])[MASK > 0]
        close(pulls, np.full_like(pulls, pulls[0]))

    check_advantages(lib.dr_grpo_advantages)
    breaks(check_advantages, lib.grpo_advantages)
    check_loss(lambda *a: lib.dr_grpo_loss(*a, length=8)[0])
    breaks(check_loss, lambda *a: lib.grpo_loss(*a)[0])


# 6. The mean over nothing.


@pytest.mark.parametrize("name", REDUCTIONS)
def test_6_an_empty_mask_gives_zero(name: str) -> None:
    none = np.zeros_like(MASK)

    def check(mean: Callable) -> None:
        value, grad = slope(mean)(X, none)
        assert value == 0
        assert zero(grad)

    check(lambda x, m: REDUCTIONS[name](x, m, lib.batch_counts(m)))
    breaks(check, lambda x, m: (x * m).sum() / m.sum().astype(float))
    breaks(check, lambda x, m: ((x * m).sum(1) / jnp.asarray(m).sum(1)).mean())
