"""Counts and the five means: worked numbers, parts, empty masks, refusals."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_reason.losses import (
    batch_counts,
    fixed_length_mean,
    prompt_mean,
    sequence_mean,
    sequence_sum_mean,
    token_mean,
)
from tests.losses import reference
from tests.losses.worked import EXAMPLES, MASK, VALUES, close

fixed = partial(fixed_length_mean, length=8)
PLAIN = [
    (token_mean, "agg.token-mean"),
    (sequence_mean, "agg.seq-mean-token-mean"),
    (sequence_sum_mean, "agg.seq-mean-token-sum"),
    (fixed, "agg.fixed"),
]


@pytest.mark.parametrize(("reduction", "key"), PLAIN)
def test_worked_means(reduction: Callable, key: str) -> None:
    close(reduction(VALUES, MASK, batch_counts(MASK)), EXAMPLES[key])


@pytest.mark.parametrize(
    ("reduction", "key"),
    [(token_mean, "of.tok"), (sequence_mean, "of.seq"), (fixed, "of.fixed")],
)
def test_worked_means_without_the_first_row(reduction: Callable, key: str) -> None:
    mask = MASK * np.array([[0], [1], [1], [1]])
    close(reduction(VALUES, mask, batch_counts(mask)), EXAMPLES[key])


def test_worked_parts() -> None:
    counts = batch_counts(MASK)

    def part(rows: slice) -> float:
        return float(token_mean(VALUES[rows], MASK[rows], counts))

    close([part(slice(1)), part(slice(1, 4))], EXAMPLES["ga.parts"])
    # Two devices whose gradients are averaged: twice the part each.
    two = [2 * part(slice(2)), 2 * part(slice(2, 4))]
    close(two, EXAMPLES["agg.dp_global"])
    close(np.mean(two), EXAMPLES["agg.dp_ok"])


def test_worked_means_of_means() -> None:
    # What a count of the rows at hand would give: not the mean over the mini-batch.
    def local(rows: slice) -> float:
        return float(token_mean(VALUES[rows], MASK[rows], batch_counts(MASK[rows])))

    devices = [local(slice(2)), local(slice(2, 4))]
    close(devices, EXAMPLES["agg.dp_local"])
    close(np.mean(devices), EXAMPLES["agg.dp_naive"])
    close(np.mean([local(slice(1)), local(slice(1, 4))]), EXAMPLES["ga.naive"])
    close(token_mean(VALUES, MASK, batch_counts(MASK)), EXAMPLES["ga.ok"])


def test_worked_denominators_of_others() -> None:
    counts = batch_counts(MASK)
    # verl's "seq-mean-token-sum-norm" does not divide by the number of sequences.
    undivided = fixed(VALUES, MASK, counts) * counts.sequences
    close(undivided, EXAMPLES["agg.verl_norm"])
    # One row filtered away: counted with it, its place pulls the mean down.
    mask = MASK * np.array([[0], [1], [1], [1]])
    close(fixed(VALUES, mask, counts), EXAMPLES["of.fixed_B4"])


def test_counts() -> None:
    mask = jnp.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
    counts = batch_counts(mask, jnp.array([2, 0, 1, 2]), num_groups=4)
    assert (counts.tokens, counts.sequences, counts.groups) == (6, 3, 2)
    assert counts.group_tokens.tolist() == [1, 0, 5, 0]
    assert counts.tokens.dtype == jnp.int32
    without = batch_counts(mask)
    assert (without.tokens, without.sequences, without.groups) == (6, 3, None)


def test_counts_are_a_pytree_that_adds_up() -> None:
    mask, ids = np.ones((4, 3), bool), np.array([0, 1, 1, 0])
    count = jax.jit(partial(batch_counts, num_groups=2))
    whole = count(mask, ids)
    total = jax.tree.map(jnp.add, count(mask[:2], ids[:2]), count(mask[2:], ids[2:]))
    assert total.tokens == whole.tokens
    assert total.sequences == whole.sequences
    assert total.group_tokens.tolist() == whole.group_tokens.tolist()


def test_ids_outside_the_groups_are_in_no_group() -> None:
    mask, x = jnp.ones((3, 2)), jnp.array([[1.0, 3.0], [100.0, 100.0], [7.0, 7.0]])
    ids = jnp.array([0, -1, 5])
    counts = batch_counts(mask, ids, num_groups=2)
    assert counts.groups == 1
    assert float(prompt_mean(x, mask, ids, counts, num_groups=2)) == 2.0


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_means_are_the_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 5)).astype(np.float32)
    mask = rng.random((6, 5)) < rng.random()
    ids = rng.integers(0, 3, 6)
    counts = batch_counts(mask, ids, num_groups=3)
    close(token_mean(x, mask, counts), reference.token_mean(x, mask))
    close(sequence_mean(x, mask, counts), reference.sequence_mean(x, mask))
    close(sequence_sum_mean(x, mask, counts), reference.sequence_sum_mean(x, mask))
    close(fixed(x, mask, counts), reference.fixed_length_mean(x, mask, 8))
    close(
        prompt_mean(x, mask, ids, counts, num_groups=3),
        reference.prompt_mean(x, mask, ids),
    )


def test_a_group_may_be_split_over_micro_batches() -> None:
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(6, 4)).astype(np.float32), rng.random((6, 4)) < 0.7
    ids = np.array([0, 1, 0, 2, 1, 0])
    counts = batch_counts(mask, ids, num_groups=3)
    parts = [
        prompt_mean(x[i : i + 2], mask[i : i + 2], ids[i : i + 2], counts, num_groups=3)
        for i in (0, 2, 4)
    ]
    close(sum(parts), reference.prompt_mean(x, mask, ids))


def test_many_tokens_are_counted_exactly() -> None:
    # Beyond 2^24 float32 cannot count in steps of one.
    counts = batch_counts(np.ones((2**12 + 1, 2**12), bool))
    assert int(counts.tokens) == 2**24 + 2**12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: token_mean(jnp.ones((2, 3)), jnp.ones((2, 2)), c), r"x \[2, 3\]"),
        (lambda c: token_mean(jnp.ones(2), jnp.ones(2), c), "2 axes"),
        (lambda c: token_mean(jnp.ones((2, 2), int), jnp.ones((2, 2)), c), "floating"),
        (lambda c: sequence_mean(jnp.ones((2, 2)), jnp.ones((2, 2)), 4), "counts must"),
        (lambda c: batch_counts(jnp.ones((2, 2)), jnp.array([0, 1])), "num_groups"),
        (lambda c: batch_counts(jnp.ones((2, 2)), num_groups=2), "with group_ids"),
        (
            lambda c: batch_counts(jnp.ones((2, 2)), jnp.array([0]), num_groups=2),
            r"one shape, got rows_of_mask \[2\], group_ids \[1\]",
        ),
        (
            lambda c: batch_counts(jnp.ones((2, 2)), jnp.ones(2), num_groups=2),
            "integer array",
        ),
        (
            lambda c: batch_counts(jnp.ones((2, 2)), jnp.array([0, 1]), num_groups=0),
            ">= 1, got 0",
        ),
        (lambda c: batch_counts(jnp.ones(4)), "2 axes"),
        (
            lambda c: fixed_length_mean(
                jnp.ones((2, 2)), jnp.ones((2, 2)), c, length=0
            ),
            "length must be finite and > 0, got 0",
        ),
        (
            lambda c: prompt_mean(
                jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.array([0, 1]), c, num_groups=2
            ),
            "counts must be taken with group_ids",
        ),
        (
            lambda c: prompt_mean(
                jnp.ones((2, 2)),
                jnp.ones((2, 2)),
                jnp.array([0, 1]),
                batch_counts(jnp.ones((2, 2)), jnp.array([0, 1]), num_groups=2),
                num_groups=3,
            ),
            "that of the counts, 2, got 3",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(batch_counts(jnp.ones((2, 2))))


def test_num_groups_must_be_static() -> None:
    mask, ids = jnp.ones((2, 2)), jnp.array([0, 1])
    with pytest.raises(ValueError, match="static integer, got a traced value"):
        jax.jit(lambda n: batch_counts(mask, ids, num_groups=n))(2)
