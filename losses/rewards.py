"""Reward shaping: by length, by correctness and length, by the difficulty of tests."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import statistics


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
    """A reward that goes from one value to another as half a cosine of the length.

    r(n) = long + (short - long) / 2 (1 + cos(pi min(n / max_length, 1))), where
    (short, long) is `correct_range` or `wrong_range`; `exceed_penalty` instead where
    n + exceed_margin >= max_length. Demystifying Long CoT, arXiv 2502.03373, section
    4.2; the ranges are those of its code, with a penalty of -10 and a margin of 16.
    TRL: (1, 0.5), (-1, -0.5), no penalty. The ranges are named by the length because a
    minimum and a maximum would swap for wrong answers. open-r1 counts characters and
    does not stop the cosine at the limit, so that twice the limit gets the reward of an
    empty text.

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
      >>> from jaxrl_reason.losses import cosine_length_reward
      >>> lengths, correct = jnp.array([0, 500, 500, 984]), jnp.array([1, 1, 0, 1])
      >>> limit = {"max_length": 1000, "exceed_penalty": -10.0, "exceed_margin": 16}
      >>> print(cosine_length_reward(lengths, correct, **limit).round(4))
      [  2.    1.5  -5.  -10. ]
    """
    _checks.number("max_length", max_length, above=0)
    _checks.number("exceed_margin", exceed_margin, at_least=0)
    for name, ends in (("correct_range", correct_range), ("wrong_range", wrong_range)):
        if len(ends) != 2:
            raise ValueError(f"{name} must be (short, long), got {ends!r}")
        for value in ends:
            _checks.number(name, value)
    lengths, right = _checks.constant("lengths", lengths), _checks.as_bool(correct)
    _checks.same_shape(lengths.ndim, lengths=lengths, correct=right)
    left = 1.0 - jnp.clip(lengths / max_length, 0.0, 1.0)
    # (1 + cos(pi p)) / 2 = sin^2(pi (1 - p) / 2), exactly 0 at the limit.
    shortness = jnp.square(jnp.sin(0.5 * math.pi * left))
    short = jnp.where(right, correct_range[0], wrong_range[0])
    long = jnp.where(right, correct_range[1], wrong_range[1])
    reward = long + (short - long) * shortness
    if exceed_penalty is not None:
        _checks.number("exceed_penalty", exceed_penalty)
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
    """Rewards right answers that are shorter than others of their group.

    lam_i = 1/2 - (n_i - min_g n) / (max_g n - min_g n); reward lam_i for a right
    answer, min(0, lam_i) for a wrong one; 0 where all lengths of the group are equal.
    Kimi k1.5, arXiv 2501.12599, section 2.3.3; added to the reward of correctness with
    a weight, after a warm-up without it. open-r1's `len_reward` takes the extremes over
    all answers that it is given, and counts characters.

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
      >>> from jaxrl_reason.losses import kimi_length_reward
      >>> lengths, correct = jnp.array([100, 200, 150, 300]), jnp.array([1, 1, 0, 0])
      >>> print(kimi_length_reward(lengths, correct, jnp.zeros(4, int), num_groups=1))
      [ 0.5  0.   0.  -0.5]
    """
    lengths, right = _checks.constant("lengths", lengths), _checks.as_bool(correct)
    ids = jnp.asarray(group_ids)
    _checks.same_shape(1, lengths=lengths, correct=right, group_ids=ids)
    stats = statistics(lengths, ids, num_groups, valid)
    low, high = stats.low[stats.groups.ids], stats.high[stats.groups.ids]  # [B] each
    differ = stats.groups.member & (high != low)
    width = jnp.where(differ, high - low, 1.0)
    lam = 0.5 - jnp.where(differ, lengths - low, 0.0) / width
    return jnp.where(differ, jnp.where(right, lam, jnp.minimum(lam, 0.0)), 0.0)


def difficulty_reward(
    passed: ArrayLike,
    levels: ArrayLike,
    *,
    scores: Sequence[float],
    soft: bool = False,
) -> jax.Array:
    """Partial reward for passing part of the tests; hard tests are worth more.

    Tests are grouped in levels, 0 the easiest; level l is worth s_l, sum_l s_l = 1.
    Strict: s_l is earned if all tests of level l and of all easier levels pass. Soft:
    s_l (passed tests of l / tests of l). MiMo-7B, arXiv 2505.07608. The scores that it
    used are not published.

    Args:
      passed: [..., K] bool or 0/1, one per test.
      levels: [..., K] int in [0, L) from `difficulty_levels`; a test with any other
        level, such as -1 for padding, does not count.
      scores: the worth of each of the L levels, >= 0, sum 1.
      soft: whether to use the soft scheme.

    Returns:
      [...] float32 constants in [0, 1]. A level without tests is worth nothing and
      blocks no other, so that a problem without tests has the reward 0.

    Raises:
      ValueError: shapes differ, or the scores are negative or do not sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import difficulty_reward
      >>> passed = jnp.array([1, 1, 1, 0, 1, 1, 1, 1, 1])
      >>> levels = jnp.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
      >>> scores = (0.2, 0.3, 0.5)
      >>> strict = difficulty_reward(passed, levels, scores=scores)
      >>> soft = difficulty_reward(passed, levels, scores=scores, soft=True)
      >>> round(float(strict), 4), round(float(soft), 4)
      (0.2, 0.9)
    """
    for score in scores:
        _checks.number("scores", score, at_least=0)
    if not math.isclose(sum(scores), 1.0, abs_tol=1e-6):
        raise ValueError(f"scores must sum to 1, got {tuple(scores)!r}")
    right, levels = _checks.as_bool(passed), _checks.integers("levels", levels)
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
    """Sorts tests into levels by the fraction of earlier programs that passed them.

    level = #{e in edges : rate < e}, so that 0 is the easiest. MiMo-7B, arXiv
    2505.07608, groups by pass rate; its thresholds are not published.

    Args:
      pass_rates: [..., K] in [0, 1], of a reference model's samples.
      edges: L - 1 pass rates in decreasing order.

    Returns:
      [..., K] int32 in [0, L).

    Raises:
      ValueError: the edges do not decrease, or are outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import difficulty_levels
      >>> print(difficulty_levels(jnp.array([0.9, 0.75, 0.5, 0.1]), edges=(0.75, 0.25)))
      [0 0 1 2]
    """
    for edge in edges:
        _checks.number("edges", edge, at_least=0, at_most=1)
    if any(a <= b for a, b in itertools.pairwise(edges)):
        raise ValueError(f"edges must decrease, got {tuple(edges)!r}")
    rates = _checks.constant("pass_rates", pass_rates)
    bounds = jnp.asarray(edges, jnp.float32).reshape((1,) * rates.ndim + (-1,))
    return jnp.sum(rates[..., None] < bounds, axis=-1, dtype=jnp.int32)
