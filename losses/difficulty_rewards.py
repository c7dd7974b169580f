"""Rewards for code that passes some of its unit tests, weighed by their difficulty."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks


def difficulty_reward(
    passed: ArrayLike,
    levels: ArrayLike,
    *,
    scores: Sequence[float],
    soft: bool = False,
) -> jax.Array:
    """Part of the reward for part of the tests, hard tests worth more.

    Tests are in levels, 0 the easiest; level l is worth s_l, sum_l s_l = 1. Strict: s_l
    is earned if all tests of level l and of all easier levels pass. Soft:
    s_l (passed tests of l / tests of l). MiMo-7B, arXiv 2505.07608. The scores that it
    used are not published.

    Args:
      passed: [..., K] bool or 0/1, one a test.
      levels: [..., K] int in [0, L) from `difficulty_levels`; a test with any other
        level, -1 for padding say, does not count.
      scores: L worths, >= 0, that sum to 1.
      soft: the soft scheme.

    Returns:
      [...] float32 constants in [0, 1]. A level without tests earns nothing and stands
      in nobody's way, so that a problem without tests has the reward 0.

    Raises:
      ValueError: shapes differ, or the scores are negative or do not sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.difficulty_rewards import difficulty_reward
      >>> passed = jnp.array([1, 1, 1, 0, 1, 1, 1, 1, 1])
      >>> levels = jnp.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
      >>> scores = (0.2, 0.3, 0.5)
      >>> strict = difficulty_reward(passed, levels, scores=scores)
      >>> soft = difficulty_reward(passed, levels, scores=scores, soft=True)
      >>> round(float(strict), 4), round(float(soft), 4)
      (0.2, 0.9)
    """
    for score in scores:
        _checks.not_negative("scores", score)
    if not math.isclose(sum(scores), 1.0, abs_tol=1e-6):
        raise ValueError(f"scores must sum to 1, got {tuple(scores)!r}")
    right, levels = _checks.flags(passed), _checks.integers("levels", levels)
    _checks.same_shape(right.ndim, passed=right, levels=levels)
    if right.ndim == 0:
        raise ValueError("passed must have an axis of tests, got a scalar")
    ladder = jnp.arange(len(scores)).reshape((1,) * right.ndim + (-1,))
    inside = levels[..., None] == ladder  # [..., K, L]
    tests = jnp.sum(inside, axis=-2)
    passes = jnp.sum(inside & right[..., None], axis=-2)
    if soft:
        earned = passes / jnp.maximum(tests, 1)
    else:
        flawless = jnp.cumprod(passes == tests, axis=-1)
        earned = flawless * (tests > 0).astype(jnp.float32)
    return earned @ jnp.asarray(scores, jnp.float32)


def difficulty_levels(pass_rates: ArrayLike, *, edges: Sequence[float]) -> jax.Array:
    """Puts tests into levels by the share of earlier programs that passed them.

    level = #{e in edges : rate < e}, so that 0 is the easiest. MiMo-7B, arXiv
    2505.07608, groups by pass rate; where it cuts is not published.

    Args:
      pass_rates: [..., K] in [0, 1], of a reference model's samples.
      edges: L - 1 pass rates in falling order.

    Returns:
      [..., K] int32 in [0, L).

    Raises:
      ValueError: the edges do not fall, or are outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.difficulty_rewards import difficulty_levels
      >>> print(difficulty_levels(jnp.array([0.9, 0.75, 0.5, 0.1]), edges=(0.75, 0.25)))
      [0 0 1 2]
    """
    for edge in edges:
        _checks.unit_interval("edges", edge)
    if any(a <= b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"edges must fall, got {tuple(edges)!r}")
    rates = _checks.constant("pass_rates", pass_rates)
    bounds = jnp.asarray(edges, jnp.float32).reshape((1,) * rates.ndim + (-1,))
    return jnp.sum(rates[..., None] < bounds, axis=-1, dtype=jnp.int32)
