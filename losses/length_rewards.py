"""Rewards that depend on the length of a response and on whether it is right."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._groups import read_groups


def cosine_length_reward(
    lengths: ArrayLike,
    correct: ArrayLike,
    *,
    max_length: float | jax.Array,
    correct_range: tuple[float, float] = (2.0, 1.0),
    wrong_range: tuple[float, float] = (-10.0, 0.0),
    exceed_penalty: float | None = None,
    exceed_margin: float = 0.0,
) -> jax.Array:
    """A reward that goes from one value to another along half a cosine of the length.

    r(n) = long + (short - long) / 2 (1 + cos(pi min(n / max_length, 1))), where
    (short, long) is `correct_range` or `wrong_range`; `exceed_penalty` instead where
    n + exceed_margin >= max_length. Demystifying Long CoT, arXiv 2502.03373, section
    4.2; the ranges are those of its code, with a penalty of -10 and a margin of 16.
    TRL: (1, 0.5), (-1, -0.5), no penalty. The ranges are named by the length because a
    minimum and a maximum swap places for wrong answers. open-r1 counts characters and
    does not stop the cosine, so that twice the limit earns the value of an empty text.

    Args:
      lengths: response lengths in tokens, any shape.
      correct: bool or 0/1, the same shape.
      max_length: tokens, finite and > 0.
      correct_range: rewards of a right answer of length 0 and of `max_length`.
      wrong_range: likewise of a wrong one.
      exceed_penalty: reward of a response that reaches the limit, right or wrong; None
        for none.
      exceed_margin: tokens before the limit that count as having reached it, >= 0.

    Returns:
      float32 constants, the shape of `lengths`.

    Raises:
      ValueError: shapes differ, or a setting is not finite or out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.length_rewards import cosine_length_reward
      >>> lengths, correct = jnp.array([0, 500, 500, 984]), jnp.array([1, 1, 0, 1])
      >>> limit = {"max_length": 1000, "exceed_penalty": -10.0, "exceed_margin": 16}
      >>> print(cosine_length_reward(lengths, correct, **limit).round(4))
      [  2.    1.5  -5.  -10. ]
    """
    _checks.positive("max_length", max_length)
    _checks.not_negative("exceed_margin", exceed_margin)
    for name, ends in (("correct_range", correct_range), ("wrong_range", wrong_range)):
        if len(ends) != 2:
            raise ValueError(f"{name} must be (short, long), got {ends!r}")
        for value in ends:
            _checks.finite(name, value)
    lengths, right = _checks.constant("lengths", lengths), _checks.flags(correct)
    _checks.same_shape(lengths.ndim, lengths=lengths, correct=right)
    left = 1.0 - jnp.clip(lengths / max_length, 0.0, 1.0)
    # (1 + cos(pi p)) / 2 = sin^2(pi (1 - p) / 2), exactly 0 at the limit.
    share = jnp.square(jnp.sin(0.5 * math.pi * left))
    short = jnp.where(right, correct_range[0], wrong_range[0])
    long = jnp.where(right, correct_range[1], wrong_range[1])
    reward = long + (short - long) * share
    if exceed_penalty is not None:
        _checks.finite("exceed_penalty", exceed_penalty)
        reached = lengths + exceed_margin >= max_length
        reward = jnp.where(reached, exceed_penalty, reward)
    return reward


def kimi_length_reward(
    lengths: ArrayLike,
    correct: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """Rewards answers shorter than others of their group, if they are right.

    lam_i = 1/2 - (n_i - min_g n) / (max_g n - min_g n); reward lam_i for a right
    answer, min(0, lam_i) for a wrong one; 0 where all lengths of the group are equal.
    Kimi k1.5, arXiv 2501.12599, section 2.3.3; added to the reward of correctness with
    a weight, after a warm-up without it. open-r1's `len_reward` takes the extremes over
    whatever it is handed, and counts characters.

    Args:
      lengths: [B] response lengths in tokens.
      correct: [B] bool or 0/1.
      group_ids: [B] int in [0, num_groups); a sequence with any other id gets 0.
      num_groups: static.
      valid: [B] bool or 0/1; the others are left out and get 0.

    Returns:
      [B] float32 constants in [-0.5, 0.5].

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.length_rewards import kimi_length_reward
      >>> lengths, correct = jnp.array([100, 200, 150, 300]), jnp.array([1, 1, 0, 0])
      >>> print(kimi_length_reward(lengths, correct, jnp.zeros(4, int), num_groups=1))
      [ 0.5  0.   0.  -0.5]
    """
    lengths, right = _checks.constant("lengths", lengths), _checks.flags(correct)
    groups = read_groups(group_ids, num_groups, valid, lengths=lengths, correct=right)
    low, high = (x[groups.ids] for x in groups.extremes(lengths))
    spread = groups.member & (high != low)
    width = jnp.where(spread, high - low, 1.0)
    lam = 0.5 - jnp.where(spread, lengths - low, 0.0) / width
    return jnp.where(spread, jnp.where(right, lam, jnp.minimum(lam, 0.0)), 0.0)
