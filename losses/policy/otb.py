"""OTB: a minimum-variance baseline for each token, from a group of responses."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import read_groups, statistics, whole, zero_masked
from jaxrl_reason.losses.returns import discounted_returns


def sum_squared_probs(
    logits: ArrayLike, *, temperature: float | jax.Array = 1.0
) -> jax.Array:
    """The sum over the vocabulary of the squared probabilities.

    sum_v p_v^2 = exp(logsumexp(2 z) - 2 logsumexp(z)), z the logits over the
    temperature: 1 where the policy is certain, 1/V where it is uniform. For
    `otb_advantages`.

    Args:
      logits: [..., V]; a constant.
      temperature: of the sampling, > 0.

    Returns:
      [...] float32 constants in (0, 1].

    Raises:
      ValueError: no vocabulary axis, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import sum_squared_probs
      >>> logits = jnp.log(jnp.array([[0.5, 0.5, 0.0], [0.75, 0.25, 0.0]]))
      >>> [round(x, 4) for x in sum_squared_probs(logits).tolist()]
      [0.5, 0.625]
    """
    logits = jax.lax.stop_gradient(_checks.floating("logits", logits))
    if logits.ndim < 1 or logits.shape[-1] < 1:
        raise ValueError(f"logits must have shape [B, T, V], got {list(logits.shape)}")
    _checks.number("temperature", temperature, above=0)
    probs = jax.nn.softmax(logits / temperature, axis=-1)
    return jax.lax.stop_gradient(jnp.sum(jnp.square(probs), axis=-1))


def otb_advantages(
    token_rewards: ArrayLike,
    logprobs: ArrayLike,
    squared_probs: ArrayLike,
    group_ids: ArrayLike,
    mask: ArrayLike,
    *,
    num_groups: int,
    weights: ArrayLike | None = None,
    zero_tail: bool = False,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Returns minus a baseline for each token, weighted by the gradient so far.

    A_it = G_it - B_t, B_t = sum_i W_it G_it / sum_i W_it over the responses of the
    group that have a t-th token, W_it = sum_{j <= t} (1 - 2 p_ij + sum_v p_ijv^2): the
    squared norm of the gradient in the logits, summed from the first token on. OTB,
    arXiv 2602.07078 (read in verl's documentation and code of January 2026; equation
    numbers not checked). Only tokens inside the mask are counted, as in verl's variant
    for several turns; masked tokens change nothing. With `weights` w each summand is
    multiplied by w_ij^2. A group of one gets 0, where verl keeps its return.

    Args:
      token_rewards: [B, T]; those outside the mask are ignored. An outcome:
        `rewards_at_end`.
      logprobs: [B, T] of the tokens under the policy that sampled.
      squared_probs: [B, T] `sum_squared_probs` of the same policy.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      mask: [B, T] bool or 0/1.
      num_groups: static.
      weights: [B, T] importance weights that the loss will multiply by; 1 if left out.
      zero_tail: no baseline where only one response of the group is left: A = G there
        instead of 0. verl's `handle_zero_tail`.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B, T] float32 constants, zero outside the mask; exactly 0 where all returns of
      the group are equal.

    Raises:
      ValueError: shapes differ, or `num_groups` is not an integer >= 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import otb_advantages
      >>> rewards, mask = jnp.array([[0.0, 1.0], [0.0, 0.0]]), jnp.ones((2, 2))
      >>> logprobs = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.5]]))
      >>> squares = jnp.array([[0.5, 0.5], [0.5, 0.5]])  # W = .5, 1 and 1, 1.5
      >>> ids = jnp.array([0, 0])
      >>> found = otb_advantages(rewards, logprobs, squares, ids, mask, num_groups=1)
      >>> [[round(x, 4) for x in row] for row in found.tolist()]
      [[0.6667, 0.6], [-0.3333, -0.4]]
    """
    rewards = _checks.constant("token_rewards", token_rewards)
    logprobs = _checks.floating("logprobs", logprobs)
    squares = _checks.constant("squared_probs", squared_probs)
    mask = _checks.as_bool(mask)
    _checks.same_shape(
        2, token_rewards=rewards, logprobs=logprobs, squared_probs=squares, mask=mask
    )
    member = read_groups(group_ids, num_groups, valid).member
    mask &= _checks.per_row("group_ids", member, mask)

    rewards, mask = whole(rewards, 1), whole(mask, 1)
    logprobs, squares = whole(logprobs, 1), whole(squares, 1)
    energy = 1.0 - 2.0 * jnp.exp(logprobs) + squares  # [B, T]
    if weights is not None:
        weights = _checks.constant("weights", weights)
        weights = _checks.broadcast_to_tokens("weights", weights, mask)
        energy = energy * jnp.square(whole(weights, 1))
    energy = jnp.cumsum(zero_masked(jnp.maximum(energy, 0.0), mask), axis=1)
    returns = discounted_returns(rewards, mask)

    def less_baseline(g: jax.Array, w: jax.Array, alive: jax.Array) -> jax.Array:
        """[B] each: the n-th token of each response, where it has one."""
        stats = statistics(g, group_ids, num_groups, alive)
        ids, total = stats.groups.ids, stats.groups.total
        # If no token has a gradient, all weights are equal: the baseline is the mean.
        w = jnp.where((total(w) == 0)[ids], 1.0, w)
        shift = total(w * stats.centred) / jnp.maximum(total(w), 1e-30)
        found = stats.centred - shift[ids]
        if zero_tail:
            found = jnp.where(stats.sizes[ids] == 1, g, found)
        return zero_masked(found, alive)

    # The n-th token of each row into column n; masked ones come last.
    order = jnp.argsort(~mask, axis=1, stable=True)
    columns = (jnp.take_along_axis(x, order, axis=1) for x in (returns, energy, mask))
    found = jax.vmap(less_baseline, in_axes=1, out_axes=1)(*columns)
    place = jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)
    found = jnp.take_along_axis(found, place, axis=1)
    return jax.lax.stop_gradient(zero_masked(found, mask))
