"""From per-token values to one number: counts of a mini-batch and five means.

A denominator belongs to the whole mini-batch, so it is an argument and never taken
from the rows given: count once with `batch_counts`, then reduce any part of the batch.
The results add up, over micro-batches and over devices, to the mean over the whole
mini-batch.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import (
    Counts,
    at_least_one,
    mean_of_sequence_sums,
    mean_over_sequences,
    mean_over_tokens,
    read_groups,
    zero_masked,
)


def batch_counts(
    mask: ArrayLike,
    group_ids: ArrayLike | None = None,
    *,
    num_groups: int | None = None,
) -> Counts:
    """Counts tokens, non-empty sequences and non-empty groups of a whole mini-batch.

    tokens = sum_it m_it, sequences = #{i : n_i > 0}, groups = #{g : N_g > 0}, with n_i
    the tokens of sequence i and N_g those of group g. Fully masked rows are not
    counted, so that padding a batch with them changes nothing.

    Args:
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      group_ids: [B] int in [0, num_groups); a row with any other id is in no group.
      num_groups: static number of groups, required with `group_ids`.

    Returns:
      The counts, to pass to every reduction of every part of this mini-batch.

    Raises:
      ValueError: shapes differ, or only one of `group_ids` and `num_groups` is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts
      >>> mask = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
      >>> counts = batch_counts(mask, jnp.array([0, 0, 1]), num_groups=2)
      >>> int(counts.tokens), int(counts.sequences), int(counts.groups)
      (4, 2, 1)
    """
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, mask=mask)
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    tokens = jnp.sum(lengths, dtype=jnp.int32)
    sequences = jnp.sum(lengths > 0, dtype=jnp.int32)
    if group_ids is None:
        if num_groups is not None:
            raise ValueError("num_groups must come with group_ids, got it alone")
        return Counts(tokens, sequences)
    if num_groups is None:
        raise ValueError("group_ids must come with num_groups, got None")
    rows = read_groups(group_ids, num_groups, rows_of_mask=lengths)
    group_tokens = rows.total(lengths)
    groups = jnp.sum(group_tokens > 0, dtype=jnp.int32)
    return Counts(tokens, sequences, groups, group_tokens)


def token_mean(x: ArrayLike, mask: ArrayLike, counts: Counts) -> jax.Array:
    """Mean over all tokens of the mini-batch.

    L = sum_it m_it x_it / sum_it m_it. Every token weighs the same, long responses more
    than short ones. DAPO, arXiv 2503.14476, equation 12.

    Args:
      x: [B, T] per-token values, in any part of the mini-batch.
      mask: [B, T] bool or 0/1; `x` may hold anything, nan included, where it is 0.
      counts: `batch_counts` of the whole mini-batch.

    Returns:
      A float32 scalar: what this part adds to the mean.

    Raises:
      ValueError: shapes differ, or `counts` is not a Counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, token_mean
      >>> x = jnp.array([[1.0, 2.0], [6.0, 9.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> float(token_mean(x, mask, batch_counts(mask)))
      3.0
    """
    x, mask = _values(x, mask, counts)
    return mean_over_tokens(x, mask, counts)


def sequence_mean(x: ArrayLike, mask: ArrayLike, counts: Counts) -> jax.Array:
    """Mean over non-empty sequences of each sequence's token mean.

    L = 1/N sum_i (1/n_i) sum_t m_it x_it, N the non-empty sequences. GRPO, arXiv
    2402.03300, equation 3; there N is the number of sampled responses, which is the
    same as long as none is fully masked.

    Args:
      x: [B, T] per-token values; rows are whole sequences.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.

    Returns:
      A float32 scalar: what this part adds to the mean.

    Raises:
      ValueError: shapes differ, or `counts` is not a Counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, sequence_mean
      >>> x = jnp.array([[1.0, 2.0], [6.0, 9.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> float(sequence_mean(x, mask, batch_counts(mask)))
      3.75
    """
    x, mask = _values(x, mask, counts)
    return mean_over_sequences(x, mask, counts)


def sequence_sum_mean(x: ArrayLike, mask: ArrayLike, counts: Counts) -> jax.Array:
    """Mean over non-empty sequences of each sequence's sum over tokens.

    L = 1/N sum_i sum_t m_it x_it, N the non-empty sequences: a whole response is one
    action, as in RLOO, arXiv 2402.14740.

    Args:
      x: [B, T] per-token values.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.

    Returns:
      A float32 scalar: what this part adds to the mean.

    Raises:
      ValueError: shapes differ, or `counts` is not a Counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, sequence_sum_mean
      >>> x = jnp.array([[1.0, 2.0], [6.0, 9.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> float(sequence_sum_mean(x, mask, batch_counts(mask)))
      4.5
    """
    x, mask = _values(x, mask, counts)
    return mean_of_sequence_sums(x, mask, counts)


def fixed_length_mean(
    x: ArrayLike, mask: ArrayLike, counts: Counts, *, length: float | jax.Array
) -> jax.Array:
    """Mean over non-empty sequences of each sequence's sum divided by one constant.

    L = 1/N sum_i (1/length) sum_t m_it x_it. Dr. GRPO, arXiv 2503.20783: with the same
    divisor for all, a long wrong answer is not penalised less per token than a short
    one.

    Args:
      x: [B, T] per-token values.
      mask: [B, T] bool or 0/1.
      counts: `batch_counts` of the whole mini-batch.
      length: tokens, > 0; the generation limit, the same throughout training. Never
        the width of a batch, which changes from batch to batch.

    Returns:
      A float32 scalar: what this part adds to the mean.

    Raises:
      ValueError: shapes differ, `counts` is not a Counts, or `length` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, fixed_length_mean
      >>> x = jnp.array([[1.0, 2.0], [6.0, 9.0]])
      >>> mask = jnp.array([[1, 1], [1, 0]])
      >>> float(fixed_length_mean(x, mask, batch_counts(mask), length=4))
      1.125
    """
    _checks.number("length", length, above=0)
    return sequence_sum_mean(x, mask, counts) / length


def prompt_mean(
    x: ArrayLike,
    mask: ArrayLike,
    group_ids: ArrayLike,
    counts: Counts,
    *,
    num_groups: int,
) -> jax.Array:
    """Mean over non-empty groups of each group's token mean.

    L = 1/P sum_g (1/N_g) sum_{i in g} sum_t m_it x_it, P the non-empty groups, N_g the
    tokens of group g: prompts weigh the same, whatever the length of their responses. A
    group may be split over micro-batches.

    Args:
      x: [B, T] per-token values.
      mask: [B, T] bool or 0/1.
      group_ids: [B] int in [0, num_groups); a row with any other id is in no group.
      counts: `batch_counts(mask, group_ids, num_groups=...)` of the whole mini-batch.
      num_groups: static number of groups of the mini-batch.

    Returns:
      A float32 scalar: what this part adds to the mean.

    Raises:
      ValueError: shapes differ, or `counts` was made without these groups.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts, prompt_mean
      >>> x = jnp.array([[1.0, 2.0], [6.0, 9.0], [4.0, 4.0]])
      >>> mask, ids = jnp.array([[1, 1], [1, 0], [1, 1]]), jnp.array([0, 0, 1])
      >>> counts = batch_counts(mask, ids, num_groups=2)
      >>> float(prompt_mean(x, mask, ids, counts, num_groups=2))
      3.5
    """
    x, mask = _values(x, mask, counts)
    if counts.groups is None or counts.group_tokens is None:
        raise ValueError("counts must be taken with group_ids, got counts without")
    rows = jnp.sum(zero_masked(x, mask), axis=1)  # [B]
    sums = read_groups(group_ids, num_groups, rows_of_mask=rows).total(rows)
    if counts.group_tokens.shape != sums.shape:
        raise ValueError(
            f"num_groups must be that of the counts, {counts.group_tokens.shape[0]}, "
            f"got {num_groups}"
        )
    means = sums / at_least_one(counts.group_tokens)
    return jnp.sum(means) / at_least_one(counts.groups)


def _values(
    x: ArrayLike, mask: ArrayLike, counts: Counts
) -> tuple[jax.Array, jax.Array]:
    x, mask = _checks.floating("x", x), _checks.as_bool(mask)
    _checks.same_shape(2, x=x, mask=mask)
    if not isinstance(counts, Counts):
        raise ValueError(
            f"counts must come from batch_counts, got {type(counts).__name__}"
        )
    return x, mask
