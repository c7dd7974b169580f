"""Rewards and advantages of steps, scored by an explicit process reward model.

S steps per response: `step_scores` [B, S], the index of each step's last token
`step_ends` [B, S], and `step_mask` [B, S], True on steps that exist. Rows may differ in
their number of steps. A step belongs to the tokens up to its end:

- an end on a masked token (a tool's output) refers to the last unmasked token before
  it; a step with no unmasked token at or before its end is left out;
- a negative end is no step; one beyond the row refers to its last token.

What the arrays hold where the masks are 0 does not matter.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import whole, zero_masked
from jaxrl_reason.losses.advantages import grpo_advantages


def rewards_at_steps(
    step_scores: ArrayLike, step_ends: ArrayLike, step_mask: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """Puts each step's score on the step's last token.

    r_t = sum of p_j over the steps j with e_j = t. Token rewards for
    `discounted_returns` or `gae`: the usual use of a process reward model (Let's Verify
    Step by Step, arXiv 2305.20050). Their sum rewards more steps; `step_score_gains`
    and `min_future_step_scores` do not. Add the outcome with `rewards_at_end`.

    Args:
      step_scores: [B, S] score p_j of each step.
      step_ends: [B, S] int, index of each step's last token.
      step_mask: [B, S] bool or 0/1.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.

    Returns:
      [B, T] float32 constants, zero outside the mask; scores on the same token add up.

    Raises:
      ValueError: shapes differ, or `step_ends` are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import rewards_at_steps
      >>> scores, ends = jnp.array([[0.5, 0.25]]), jnp.array([[1, 3]])
      >>> print(rewards_at_steps(scores, ends, jnp.ones((1, 2)), jnp.ones((1, 4))))
      [[0.   0.5  0.   0.25]]
    """
    scores, at, on, mask = _steps(step_scores, step_ends, step_mask, mask)
    return _place(scores, at, on, mask)


def step_score_gains(step_scores: ArrayLike, step_mask: ArrayLike) -> jax.Array:
    """The difference of each step's score from that of the previous step.

    d_j = p_j - p_{j-1}, p_0 = 0. Potential-based shaping (Ng, Harada and Russell 1999):
    the gains of all steps sum to the last score, however many there are, so that idle
    steps get no reward. Pass them to `rewards_at_steps`.

    Args:
      step_scores: [B, S], steps in their order.
      step_mask: [B, S] bool or 0/1; other steps are skipped.

    Returns:
      [B, S] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import step_score_gains
      >>> print(step_score_gains(jnp.array([[0.5, 9.0, 0.75]]), jnp.array([[1, 0, 1]])))
      [[0.5  0.   0.25]]
    """
    scores, on = (
        _checks.constant("step_scores", step_scores),
        _checks.as_bool(step_mask),
    )
    _checks.same_shape(2, step_scores=scores, step_mask=on)
    scores, on = whole(scores, 1), whole(on, 1)
    scores, latest = zero_masked(scores, on), _latest(on)
    before = jnp.pad(latest[:, :-1], [(0, 0), (1, 0)], constant_values=-1)
    previous = jnp.take_along_axis(scores, jnp.maximum(before, 0), axis=1)
    return zero_masked(scores - zero_masked(previous, before >= 0), on)


def min_future_step_scores(
    step_scores: ArrayLike, step_ends: ArrayLike, step_mask: ArrayLike, mask: ArrayLike
) -> jax.Array:
    """The lowest score among the current and later steps.

    G_t = min of p_j over the steps j with e_j >= t, 0 after the last. PURE,
    arXiv 2504.15275: a response is worth as much as its worst step, and good steps
    cannot make up for it. PURE's own code approximates the minimum by token rewards,
    the scores weighted by softmin(p), and so gives about 0 to the steps after the worst
    one.

    Args:
      step_scores: [B, S] score p_j of each step.
      step_ends: [B, S] int, index of each step's last token.
      step_mask: [B, S] bool or 0/1.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.

    Returns:
      [B, T] float32 constants, zero outside the mask. They are returns: subtract a
      baseline, for example by `whiten`.

    Raises:
      ValueError: shapes differ, or `step_ends` are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import min_future_step_scores
      >>> scores, ends = jnp.array([[0.75, 0.25, 0.5]]), jnp.array([[0, 2, 3]])
      >>> steps, mask = jnp.ones((1, 3)), jnp.ones((1, 4))
      >>> print(min_future_step_scores(scores, ends, steps, mask))
      [[0.25 0.25 0.25 0.5 ]]
    """
    scores, at, on, mask = _steps(step_scores, step_ends, step_mask, mask)
    nothing = jnp.full(mask.shape[1], jnp.inf, scores.dtype)
    lowest = jax.vmap(lambda i, x: nothing.at[i].min(x, mode="drop"))(
        at, jnp.where(on, scores, jnp.inf)
    )
    lowest = jax.lax.cummin(lowest, axis=1, reverse=True)
    return zero_masked(lowest, mask & (lowest != jnp.inf))


def process_supervision_advantages(
    step_scores: ArrayLike,
    step_ends: ArrayLike,
    step_mask: ArrayLike,
    group_ids: ArrayLike,
    mask: ArrayLike,
    *,
    num_groups: int,
    ddof: int = 1,
    eps: float | jax.Array = 0.0,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Step scores standardised over all steps of the group, summed from each token on.

    z_j = (p_j - mean_g(p)) / (std_g(p) + eps) over all steps of all responses of the
    group, A_t = sum of z_j over the steps j with e_j >= t. GRPO with process
    supervision, DeepSeekMath, arXiv 2402.03300, section 4.1.3, which has no `eps` and
    does not say which standard deviation.

    Args:
      step_scores: [B, S] score p_j of each step.
      step_ends: [B, S] int, index of each step's last token.
      step_mask: [B, S] bool or 0/1.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      num_groups: static.
      ddof: 1 divides the sum of squares by n - 1, 0 by n, n the steps of the group.
      eps: added to the standard deviation, >= 0.
      valid: [B] bool or 0/1; the steps of the others are left out and get 0.

    Returns:
      [B, T] float32 constants, zero outside the mask; exactly 0 in groups whose steps
      all score the same.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import process_supervision_advantages
      >>> scores = jnp.array([[2.0, 0.0], [1.0, 0.0]])
      >>> ends = jnp.array([[0, 2], [1, 0]])
      >>> steps, mask = jnp.array([[1, 1], [1, 0]]), jnp.array([[1, 1, 1], [1, 1, 0]])
      >>> ids = jnp.array([0, 0])
      >>> found = process_supervision_advantages(
      ...     scores, ends, steps, ids, mask, num_groups=1
      ... )
      >>> print(found + 0.0)
      [[ 0. -1. -1.]
       [ 0.  0.  0.]]
    """
    scores, at, on, mask = _steps(step_scores, step_ends, step_mask, mask)
    ids = _checks.integers("group_ids", group_ids)
    if valid is not None:
        on = on & _checks.per_row("valid", _checks.as_bool(valid), mask)
    ids = jnp.broadcast_to(_checks.per_row("group_ids", ids, mask), scores.shape)
    z = grpo_advantages(
        scores.ravel(),
        ids.ravel(),
        num_groups=num_groups,
        ddof=ddof,
        eps=eps,
        valid=on.ravel(),
    )
    placed = _place(z.reshape(scores.shape), at, on, mask)
    return zero_masked(jax.lax.cumsum(placed, axis=1, reverse=True), mask)


def _steps(
    step_scores: ArrayLike, step_ends: ArrayLike, step_mask: ArrayLike, mask: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Scores, the unmasked token at or before each end, the valid steps, the mask."""
    scores = _checks.constant("step_scores", step_scores)
    ends = _checks.integers("step_ends", step_ends)
    on, mask = _checks.as_bool(step_mask), _checks.as_bool(mask)
    _checks.same_shape(2, step_scores=scores, step_ends=ends, step_mask=on)
    _checks.same_shape(2, mask=mask)
    if scores.shape[0] != mask.shape[0]:
        raise ValueError(
            f"step_scores must have {mask.shape[0]} rows like the mask, "
            f"got {scores.shape[0]}"
        )
    scores, ends, on, mask = (whole(x, 1) for x in (scores, ends, on, mask))
    width = mask.shape[1]
    at = jnp.take_along_axis(_latest(mask), jnp.clip(ends, 0, width - 1), axis=1)
    on = on & (ends >= 0) & (at >= 0)
    return scores, jnp.where(on, at, width), on, mask


def _latest(on: jax.Array) -> jax.Array:
    """[B, N] bool -> index of the last True at or before each position, or -1."""
    places = jnp.broadcast_to(jnp.arange(on.shape[1])[None, :], on.shape)
    return jax.lax.cummax(jnp.where(on, places, -1), axis=1)


def _place(x: jax.Array, at: jax.Array, on: jax.Array, mask: jax.Array) -> jax.Array:
    """Sums steps [B, S] into tokens [B, T]; `at` is T where there is no step."""
    zeros = jnp.zeros(mask.shape[1], x.dtype)
    return jax.vmap(lambda i, y: zeros.at[i].add(y, mode="drop"))(
        at, zero_masked(x, on)
    )
