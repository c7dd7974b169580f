"""ReMax: the greedy response's reward as the baseline."""

import jax
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import zero_masked


def remax_advantages(
    rewards: ArrayLike, greedy_rewards: ArrayLike, *, valid: ArrayLike | None = None
) -> jax.Array:
    """Rewards minus the reward of the greedy response to the same prompt.

    A_i = R(y_i) - R(y_greedy). ReMax, arXiv 2310.10505: one more response per prompt,
    at temperature 0, which is scored but not trained on. verl's `remax` takes the
    reward-to-go of token rewards with their KL penalties, and only the score as the
    baseline: `discounted_returns(token_rewards, mask) - greedy_rewards[:, None]`.

    Args:
      rewards: [B] one per sequence.
      greedy_rewards: [B] of the greedy response to the same prompt. With several
        samples per prompt: `greedy_rewards[group_ids]`.
      valid: [B] bool or 0/1; the others get 0, for example if either grade failed.

    Returns:
      [B] float32 constants; exactly 0 where both rewards are equal.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import remax_advantages
      >>> rewards, greedy = jnp.array([1.0, 0.0, 0.5]), jnp.array([0.25, 0.25, 0.5])
      >>> print(remax_advantages(rewards, greedy))
      [ 0.75 -0.25  0.  ]
    """
    rewards = _checks.constant("rewards", rewards)
    greedy = _checks.constant("greedy_rewards", greedy_rewards)
    on = _checks.as_bool(valid, rewards)
    _checks.same_shape(1, rewards=rewards, greedy_rewards=greedy, valid=on)
    return zero_masked(rewards - greedy, on)
