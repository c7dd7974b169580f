"""GiGPO: step advantages from other episodes that visited the same state."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import whole, zero_masked
from jaxrl_reason.losses.advantages import dr_grpo_advantages, grpo_advantages
from jaxrl_reason.losses.returns import discounted_returns


def gigpo_advantages(
    rewards: ArrayLike,
    step_rewards: ArrayLike,
    state_ids: ArrayLike,
    step_ids: ArrayLike,
    group_ids: ArrayLike,
    mask: ArrayLike,
    *,
    num_groups: int,
    num_states: int,
    gamma: float | jax.Array = 0.95,
    weight: float | jax.Array = 1.0,
    scale: bool = False,
    eps: float | jax.Array = 1e-6,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """The episode's advantage in its group, plus each step's among steps in its state.

    A = A_E(i) + weight A_S(i, k). A_E = R_i - mean_g(R) over the episodes of one task;
    A_S = G_ik - mean(G) over all steps of the group that were taken in the same
    environment state (its anchor), with G_ik = sum_l gamma^l r_i,k+l. With `scale` both
    are divided by their group's standard deviation. GiGPO, arXiv 2505.10978 (v3),
    equations 3 and 5 to 8, read in a summary of the paper and in its authors' code;
    gamma 0.95 and weight 1 are theirs, and so is no division by default. A state that
    was visited once has A_S = 0; the authors' code keeps the raw reward of a task's
    only episode, here its A_E is 0.

    Args:
      rewards: [B] of each episode; a row is an episode, with S steps of the policy.
      step_rewards: [B, S] of each step.
      state_ids: [B, S] int, which state each step was taken in, in [0, num_states): the
        same id for the same state, within a group. Any other id is no step.
      step_ids: [B, T] int, the step that each token belongs to.
      group_ids: [B] int in [0, num_groups), the task; an episode with any other id gets
        0.
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      num_groups: static.
      num_states: static, the largest number of states of a group.
      gamma: discount per step, in [0, 1].
      weight: of the step's advantage, >= 0.
      scale: divide by the standard deviation (divisor n - 1) + eps.
      eps: added to the standard deviation, >= 0.
      valid: [B] bool or 0/1; the others are left out of all statistics and get 0.

    Returns:
      [B, T] float32 constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gigpo_advantages
      >>> rewards = jnp.array([1.0, 0.0])  # two episodes of one task, two steps each
      >>> step_rewards = jnp.array([[0.0, 1.0], [0.0, 0.0]])
      >>> states = jnp.array([[0, 1], [0, 2]])  # both begin in state 0, then part
      >>> found = gigpo_advantages(
      ...     rewards, step_rewards, states, jnp.array([[0, 0, 1], [0, 1, 1]]),
      ...     jnp.array([0, 0]), jnp.ones((2, 3)), num_groups=1, num_states=3, gamma=0.5
      ... )
      >>> print(found)
      [[ 0.75  0.75  0.5 ]
       [-0.75 -0.5  -0.5 ]]
    """
    _checks.number("weight", weight, at_least=0)
    _checks.number("eps", eps, at_least=0)
    groups = _checks.static_size("num_groups", num_groups)
    number = _checks.static_size("num_states", num_states)
    mask, states = _checks.as_bool(mask), _checks.integers("state_ids", state_ids)
    steps, tasks = (
        _checks.integers("step_ids", step_ids),
        _checks.integers("group_ids", group_ids),
    )
    _checks.same_shape(2, step_ids=steps, mask=mask)
    steps, mask = whole(steps, 1), whole(mask, 1)
    # A state of another task is another state.
    task = _checks.per_row("group_ids", tasks, states)
    on = (states >= 0) & (states < number) & (task >= 0) & (task < groups)
    if valid is not None:
        on &= _checks.per_row("valid", _checks.as_bool(valid), states)
    estimate = partial(grpo_advantages, eps=eps) if scale else dr_grpo_advantages

    episode = estimate(rewards, tasks, num_groups=groups, valid=valid)  # [B]
    returns = discounted_returns(step_rewards, on, gamma=gamma)  # [B, S]
    anchors = jnp.where(on, task * number + states, -1)
    of_steps = estimate(
        returns.ravel(), anchors.ravel(), num_groups=groups * number
    ).reshape(returns.shape)  # [B, S]
    found = _checks.per_row("rewards", episode, mask) + weight * of_steps
    width = found.shape[1]
    tokens = jnp.take_along_axis(found, jnp.clip(steps, 0, width - 1), axis=1)
    inside = mask & (steps >= 0) & (steps < width)
    return jax.lax.stop_gradient(zero_masked(tokens, inside))
